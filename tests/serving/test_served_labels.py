"""Versions by their labels: over gRPC, over REST, and by the clients."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from components.pusher import labels
from components.pusher.versions import PushFolder
from ndr_client import Client, FaissClient
from serving.errors import RequestError
from serving.server import EmbeddedServer
from serving.versions import Versions
from tests.serving.tiny import Named, Pushes, Serve, example
from tests.waiting import wait_for


def give(pushes: Pushes, label: str, version: int) -> None:
    labels.assign(PushFolder(str(pushes.root)), label, version)


def is_available(server: EmbeddedServer, version: int) -> bool:
    state = server.versions.states("retriever").get(version)
    return state is not None and state.name == "AVAILABLE"


@pytest.fixture
def pushed(pushes: Pushes) -> Pushes:
    for label in ("one", "two", "three"):
        pushes.push(label)
    give(pushes, "stable", min(pushes.labels))
    return pushes


def test_a_label_is_served_however_old_its_version_is(serve: Serve, pushed: Pushes) -> None:
    first, _, third = sorted(pushed.labels)
    server = serve(pushed.root)
    with Client(f"127.0.0.1:{server.port}", timeout=900.0) as client:

        def stable() -> tuple[Any, ...]:
            found = client.retrieve([example(0.6)], 1, version="stable")
            return found.item_ids[0, 0], found.version, found.label

        wait_for(lambda: is_available(server, first))
        assert stable() == (b"one-1", first, "stable")
        by_default = client.retrieve([example(0.6)], 1)
        assert (by_default.item_ids[0, 0], by_default.version, by_default.label) == (b"three-1", third, None)
        search = FaissClient(client, pushed.root, check_seconds=0.0, label="stable")
        nearest = search.for_queries([example(0.6)], 1)
        assert (nearest.item_ids[0, 0], nearest.version, nearest.label) == (b"one-1", first, "stable")

        fourth = pushed.push("four")
        wait_for(lambda: server.versions.live == fourth)
        assert stable() == (b"one-1", first, "stable")
        give(pushed, "stable", fourth)
        wait_for(lambda: stable() == (b"four-1", fourth, "stable"))
        assert search.for_queries([example(0.6)], 1).version == fourth
        wait_for(lambda: first not in client.available("retriever"))


def test_a_label_that_no_version_has_is_refused(serve: Serve, pushed: Pushes) -> None:
    with Client(f"127.0.0.1:{serve(pushed.root).port}", timeout=900.0) as client:
        for ask in (
            lambda: client.retrieve([example(0.6)], 1, version="canary"),
            lambda: client.available("retriever", "canary"),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                ask()
            assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert refusal.value.details() == "Unrecognized servable version label: canary"


def test_rest_has_tf_servings_address_for_labels(serve: Serve, pushed: Pushes) -> None:
    server = serve(pushed.root)
    first = min(pushed.labels)
    wait_for(lambda: is_available(server, first))
    address = f"http://127.0.0.1:{server.rest_port}/v1/models/retriever/labels/stable"
    body = {"instances": [{"angle": 0.6, "past": ["a"], "k": 1, "exclude": [""]}]}
    request = urllib.request.Request(f"{address}:predict", json.dumps(body).encode())
    assert json.load(urllib.request.urlopen(request, timeout=900))["predictions"][0]["item_ids"] == ["one-1"]
    status = json.load(urllib.request.urlopen(address, timeout=900))
    assert [each["version"] for each in status["model_version_status"]] == [str(first)]


def test_a_label_waits_for_its_version(pushed: Pushes, caplog: pytest.LogCaptureFixture) -> None:
    """Until the new version is loaded, or where it cannot be, the one before answers."""
    first, second, third = sorted(pushed.labels)

    def load(name: str, version: int, folder: Path) -> Named:
        if version == second:
            raise OSError("as the test wants it")
        return Named(name, version, folder)

    versions = Versions(pushed.root, load)
    versions.refresh()
    assert versions.labelled("stable") == first
    give(pushed, "stable", second)
    versions.refresh()
    assert versions.labelled("stable") == first and versions.get("retriever", first)
    give(pushed, "stable", third)
    versions.refresh()
    assert versions.labelled("stable") == third

    (pushed.root / "models.config").write_text("torn {")
    for _ in range(3):
        versions.refresh()
    assert versions.labelled("stable") == third
    assert caplog.text.count("the labels stay as they are") == 1
    (pushed.root / "models.config").unlink()
    versions.refresh()
    with pytest.raises(RequestError, match="Unrecognized servable version label: stable"):
        versions.labelled("stable")
