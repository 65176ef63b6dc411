"""Which version answers while versions come, go, and fail."""

import shutil
import threading
import time
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tiny import Pushes, example

from components.pusher.versions import PushFolder
from components.trainer.warmup import REQUESTS_FILE, write_requests
from serving.client import Client
from serving.server import EmbeddedServer, ServerSettings


def ids(server: EmbeddedServer, version: int | None = None) -> bytes:
    with Client(f"127.0.0.1:{server.port}") as client:
        found = client.retrieve([example(0.6)], 1, version=version)
        return found.item_ids[0, 0]


def states(server: EmbeddedServer, model: str = "retriever") -> dict[int, str]:
    return {version: state.name for version, state in server.versions.states(model).items()}


def healthz(server: EmbeddedServer) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)
    connection.request("GET", "/healthz")
    return connection.getresponse().status


def test_a_folder_that_is_empty_or_not_there_is_waited_for(serve, pushes, until) -> None:
    server = serve(pushes.root, wait=False)
    assert healthz(server) == 503
    with pytest.raises(grpc.RpcError) as refusal:
        ids(server)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    pushes.push("one")
    until(lambda: healthz(server) == 200)
    assert ids(server) == b"one-1"


def test_a_push_is_seen_within_a_second(pushes, until) -> None:
    pushes.push("one")
    with EmbeddedServer(pushes.root, ServerSettings(host="127.0.0.1", port=0, rest_port=0)) as server:
        until(lambda: server.versions.live)
        pushes.model("two")
        pushed = pushes.push("two")
        until(lambda: server.versions.live == pushed, seconds=2.0)  # a second, and as much again for a busy machine
        assert ids(server) == b"two-1"


def test_the_version_before_the_live_one_can_be_named_and_older_ones_are_let_go(serve, pushes, until) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    until(lambda: server.versions.live == second)
    assert (ids(server), ids(server, second), ids(server, first)) == (b"two-1", b"two-1", b"one-1")
    third = pushes.push("one")  # a rollback: old content under a new version
    until(lambda: states(server).get(first) == "END")
    assert (ids(server), ids(server, second)) == (b"one-1", b"two-1")
    with pytest.raises(grpc.RpcError) as refusal:
        ids(server, first)
    assert refusal.value.details() == f"Servable not found for request: Specific(retriever, {first})"
    assert states(server) == {third: "AVAILABLE", second: "AVAILABLE", first: "END"}


def test_what_is_served_needs_no_files(serve, pushes, until) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    until(lambda: server.versions.live == second)
    pushes.retain(1)
    assert not (pushes.root / "retriever" / str(first)).exists()
    assert (ids(server), ids(server, first)) == (b"two-1", b"one-1")
    shutil.rmtree(pushes.root)
    time.sleep(0.2)  # several looks
    assert ids(server) == b"two-1"


def killed_push(pushes: Pushes, part_moved: int) -> None:
    """As a push leaves it that is killed once so many parts were moved to their places: none has a manifest."""
    other = Pushes(pushes._template, pushes.root.parent / "other")
    for _ in range(2):  # its version is one that is not taken yet
        version = other.push(f"killed-{_}")
    staged = pushes.root / ".staging" / str(version)
    for number, part in enumerate(("query_tower", "item_tower", "retriever", "index")):
        target = pushes.root / part / str(version) if number < part_moved else staged / part
        shutil.copytree(other.root / part / str(version), target)
    (staged / "manifest.json").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other.root / "manifests" / f"{version}.json", staged / "manifest.json")


@pytest.mark.parametrize("part_moved", [0, 1, 3, 4])
def test_a_push_killed_on_its_way_leaves_the_old_version_served(serve, pushes, until, part_moved: int) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    killed_push(pushes, part_moved)
    time.sleep(0.3)  # several looks
    assert (server.versions.live, ids(server)) == (first, b"one-1")
    assert list(states(server)) == [first]
    PushFolder(str(pushes.root)).recover()  # what a later push does first: it completes the one that was killed
    until(lambda: server.versions.live != first)
    assert ids(server) == b"killed-1-1"


DAMAGE = {
    "cut short": lambda folder: (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:99]),
    "no weights": lambda folder: shutil.rmtree(folder / "variables"),
    "no asset": lambda folder: shutil.rmtree(folder / "assets"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_version_that_cannot_be_loaded_leaves_the_old_one_served_until_it_is_mended(
    serve, pushes, until, damage: str
) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    whole = pushes.model("two") / "retriever"
    kept = shutil.copytree(whole, whole.parent / "kept")
    DAMAGE[damage](whole)
    second = pushes.push("two")
    until(lambda: states(server).get(second) == "END")
    assert (server.versions.live, ids(server)) == (first, b"one-1")
    for model in ("retriever", "query_tower", "item_tower"):  # all or nothing
        state = server.versions.states(model)[second]
        assert (state.name, state.code) == ("END", grpc.StatusCode.UNKNOWN)
        assert f"version {second} cannot be loaded" in state.message
    folder = pushes.root / "retriever" / str(second)
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    until(lambda: server.versions.live == second)
    assert ids(server) == b"two-1"


def test_what_cannot_be_loaded_is_not_tried_again_before_it_changes(pushes) -> None:
    from serving.versions import Versions

    pushes.push("one")
    tried = []

    def load(name: str, version: int, folder: Path):
        tried.append(name)
        raise ValueError("damaged")

    versions = Versions(pushes.root, load)
    for _ in range(3):
        versions.refresh()
    assert len(tried) == 1


def test_a_version_is_live_for_all_its_models_at_once(pushes) -> None:
    """While the last of its models is being loaded, none of them answers."""
    from serving.versions import Versions

    first = pushes.push("one")
    loading, go = threading.Event(), threading.Event()

    def load(name: str, version: int, folder: Path):
        if version != first and name == "retriever":
            loading.set()
            go.wait(10)
        return f"{name} of {version}"

    versions = Versions(pushes.root, load)
    versions.refresh()
    second = pushes.push("two")
    thread = threading.Thread(target=versions.refresh)
    thread.start()
    loading.wait(10)
    models = ("query_tower", "item_tower", "retriever")
    assert [versions.get(model, None) for model in models] == [f"{model} of {first}" for model in models]
    assert {versions.states(model)[second].name for model in models} == {"LOADING"}
    go.set()
    thread.join()
    assert [versions.get(model, None) for model in models] == [f"{model} of {second}" for model in models]


def test_a_manifest_that_is_none_is_passed_over(serve, pushes, until, caplog) -> None:
    pushes.push("one")
    (pushes.root / "manifests" / "notes.json").write_text("[]")
    assert ids(serve(pushes.root)) == b"one-1"
    assert "notes.json: expected a version's manifest" in caplog.text


def request(k: int = 1) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = "retriever", "serving_examples"
    made.inputs["examples"].CopyFrom(tf.make_tensor_proto([example(0.6)]))
    made.inputs["k"].CopyFrom(tf.make_tensor_proto([k]))
    return made


def test_warm_up_requests_run_before_a_version_is_live(serve, pushes, until) -> None:
    """A request that the model refuses shows that they run: its version never becomes live."""
    model = pushes.model("one") / "retriever"
    write_requests(str(model), [request(), request(2)])
    first = pushes.push("one")
    server = serve(pushes.root)
    assert ids(server) == b"one-1"
    write_requests(str(pushes.model("two") / "retriever"), [request(k=0)])
    second = pushes.push("two")
    until(lambda: states(server).get(second) == "END")
    assert server.versions.live == first
    assert "k: expected at least 1" in server.versions.states("retriever")[second].message


def test_a_warm_up_file_that_is_cut_short_or_too_long_is_refused(serve, pushes, until) -> None:
    cut = pushes.model("one") / "retriever"
    write_requests(str(cut), [request()])
    (cut / REQUESTS_FILE).write_bytes((cut / REQUESTS_FILE).read_bytes()[:-5])
    long = pushes.model("two") / "retriever"
    write_requests(str(long), [request()] * 1001)
    first, second = pushes.push("one"), pushes.push("two")
    server = serve(pushes.root, wait=False)
    until(lambda: set(states(server).values()) == {"END"} and len(states(server)) == 2)
    assert "truncated" in server.versions.states("retriever")[first].message
    assert "expected at most 1000 Predict requests" in server.versions.states("retriever")[second].message
