"""The embedded server: TF Serving's interfaces over a push folder, for machines that have no TF Serving."""

import asyncio
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import grpc
from aiohttp import web

from serving import grpc_service, rest
from serving.api import Api
from serving.batching import Batching
from serving.ports import port_taken
from serving.servable import Servable
from serving.versions import Versions, Watcher
from serving.warmup import replay

WORKERS = 80  # threads for each of gRPC and REST; a request that waits for its batch holds one
LARGEST_MESSAGE = 64 << 20  # bytes
DRAIN_SECONDS = 10.0  # how long requests that have begun are waited for
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """How the embedded server is run.

    Attributes:
        host: the address that it listens on; TF Serving's is every one.
        port: of gRPC; 0 for any that is free.
        rest_port: of REST; 0 for any that is free.
        poll_seconds: the pause between two looks at the push folder.
        batching: how concurrent requests are merged; None runs each by itself.
    """

    host: str = "0.0.0.0"
    port: int = 8500
    rest_port: int = 8501
    poll_seconds: float = 0.25
    batching: Batching | None = field(default_factory=Batching)


class EmbeddedServer:
    """Serves what is pushed to a folder, from `with` to its end.

    Attributes:
        port: of gRPC.
        rest_port: of REST.
        versions: what is served.

    Args:
        push_folder: see `components.pusher.versions`; it may be empty, or not there yet.
        settings: how the server is run.

    Raises:
        UserError: a port cannot be had.
    """

    def __init__(self, push_folder: Path, settings: ServerSettings) -> None:
        self.versions = Versions(push_folder, partial(_load, batching=settings.batching))
        self._watcher = Watcher(self.versions, settings.poll_seconds)
        api = Api(self.versions)
        self._grpc_workers = ThreadPoolExecutor(WORKERS, "grpc")
        options = [
            ("grpc.so_reuseport", 0),  # or a second server would take half of the first one's requests
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
        ]
        self._grpc = grpc.server(self._grpc_workers, grpc_service.handlers(api), options=options)
        try:
            self.port = self._grpc.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError as error:
            raise port_taken(settings.port, "--port") from error
        self._rest = _RestThread(api, self.versions, settings)
        self.rest_port = self._rest.port

    def __enter__(self) -> Self:
        self._grpc.start()
        self._rest.start()
        self._watcher.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Takes no more requests, and waits for those that have begun, DRAIN_SECONDS at most."""
        stopped = self._grpc.stop(DRAIN_SECONDS)
        self._rest.stop()
        stopped.wait()
        self._watcher.stop()
        self._grpc_workers.shutdown()

    def run(self) -> None:
        """Serves until the process is asked to end, by SIGTERM or SIGINT. Only for the main thread, which has the signals."""
        asked = threading.Event()

        def ask(number: int, _: FrameType | None) -> None:
            _log.info("asked to end by %s", signal.Signals(number).name)
            asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                asked.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _RestThread:
    """The REST side, whose event loop has a thread of its own."""

    def __init__(self, api: Api, versions: Versions, settings: ServerSettings) -> None:
        self._workers = ThreadPoolExecutor(WORKERS, "rest")
        self._loop = asyncio.new_event_loop()
        app = rest.application(api, lambda: versions.live is not None, self._workers, LARGEST_MESSAGE)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_SECONDS)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, settings.host, settings.rest_port, reuse_port=False)
        try:
            self._loop.run_until_complete(site.start())
        except OSError as error:
            raise port_taken(settings.rest_port, "--rest-port") from error
        self.port: int = self._runner.addresses[0][1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._workers.shutdown()


def _load(name: str, version: int, folder: Path, batching: Batching | None) -> Servable:
    servable = Servable(name, version, folder, batching)
    replay(servable, folder)
    return servable
