from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.histories import Histories
from serving.server import EmbeddedServer
from serving.settings import ServerConfig
from tests.serving.tiny import ANY_PORT, Pushes, Serve, write_template
from tests.waiting import wait_for


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def pushes(template: Path, tmp_path: Path) -> Pushes:
    return Pushes(template, tmp_path)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    started = list[EmbeddedServer]()

    def start(
        root: Path,
        wait: bool = True,
        tables: Mapping[str, str] | None = None,
        histories: Histories | None = None,
        shard: int | None = None,
        **config: Any,
    ) -> EmbeddedServer:
        settings = replace(
            ANY_PORT,
            root=root.parent,
            tables=tables or {},
            histories=histories,
            config=ServerConfig(**config),
            shard=shard,
        )
        server = EmbeddedServer(root, settings)
        server.__enter__()
        started.append(server)
        if wait:
            wait_for(lambda: server.versions.live is not None)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def served(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for the questions that change nothing: it serves the label `one`."""
    pushes = Pushes(template, tmp_path_factory.mktemp("served"))
    pushes.push("one")
    with EmbeddedServer(pushes.root, ANY_PORT) as server:
        wait_for(lambda: server.versions.live is not None)
        yield server


@pytest.fixture(scope="module")
def channel(served: EmbeddedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        yield channel
