"""Which version answers while versions come, go, and fail."""

import errno
import gc
import http.client
import json
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from components.pusher.versions import PushFolder
from components.trainer.warmup import REQUESTS_FILE, write_requests
from ndr_client import Client
from ndr_client.manifests import LARGEST_MANIFEST
from ndr_client.served import MODELS
from schemas.errors import UserError
from serving.readiness import Readiness
from serving.server import EmbeddedServer, ServerSettings
from serving.versions import Versions, Watcher
from tests.odd_manifests import write_odd_files
from tests.serving.tiny import ANY_PORT, PARTS, Named, Pushes, Serve, example
from tests.waiting import wait_for


def ids(server: EmbeddedServer, version: int | None = None) -> bytes:
    with Client(f"127.0.0.1:{server.port}") as client:
        found = client.retrieve([example(0.6)], 1, version=version)
        return found.item_ids[0, 0]


def states(server: EmbeddedServer, model: str = "retriever") -> dict[int, str]:
    return {version: state.name for version, state in server.versions.states(model).items()}


def is_live(server: EmbeddedServer, version: int) -> bool:
    return server.versions.live == version


def healthz(server: EmbeddedServer) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    connection.request("GET", "/healthz")
    return connection.getresponse().status


def test_a_folder_that_is_empty_or_not_there_is_waited_for(serve: Serve, pushes: Pushes) -> None:
    server = serve(pushes.root, wait=False)
    assert healthz(server) == 503
    with pytest.raises(grpc.RpcError) as refusal:
        ids(server)
    assert refusal.value.code() == grpc.StatusCode.NOT_FOUND
    pushes.push("one")
    wait_for(lambda: healthz(server) == 200)
    assert ids(server) == b"one-1"


@pytest.mark.parametrize("name", ["port", "rest_port"])
def test_a_port_that_another_server_has_is_refused(serve: Serve, pushes: Pushes, name: str) -> None:
    """Regression: gRPC shares a port between processes if it may, and each would have had half of the requests."""
    taken = getattr(serve(pushes.root, wait=False), name)
    with pytest.raises(UserError, match=f"Port {taken} cannot be listened on: it is in use"):
        EmbeddedServer(pushes.root, replace(ANY_PORT, **{name: taken}))


def test_a_push_is_seen_by_a_server_that_looks_every_second(pushes: Pushes) -> None:
    settings = ServerSettings(port=0, rest_port=0)
    assert settings.poll_seconds <= 1.0
    pushes.push("one")
    with EmbeddedServer(pushes.root, settings) as server:
        wait_for(lambda: server.versions.live)
        pushes.model("two")
        pushed = pushes.push("two")
        wait_for(lambda: server.versions.live == pushed)
        assert ids(server) == b"two-1"


def test_the_version_before_the_live_one_can_be_named_and_older_ones_are_let_go(serve: Serve, pushes: Pushes) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    wait_for(lambda: server.versions.live == second)
    assert (ids(server), ids(server, second), ids(server, first)) == (b"two-1", b"two-1", b"one-1")
    third = pushes.push("one")  # a rollback: old content under a new version
    wait_for(lambda: states(server).get(first) == "END")
    assert (ids(server), ids(server, second)) == (b"one-1", b"two-1")
    with pytest.raises(grpc.RpcError) as refusal:
        ids(server, first)
    assert refusal.value.details() == f"Servable not found for request: Specific(retriever, {first})"
    assert states(server) == {third: "AVAILABLE", second: "AVAILABLE", first: "END"}


def test_a_dropped_version_leaves_memory_at_once(serve: Serve, pushes: Pushes) -> None:
    """On the old code a version's sessions stayed until the next full garbage collection, which came 16 pushes later."""
    first = pushes.push("first")
    server = serve(pushes.root)
    gc.disable()
    try:
        signatures = [server.versions.get(name, None).signature("serving_default") for name in MODELS]
        graphs = [weakref.ref(signature._compute._session.graph) for signature in signatures if signature]
        assert len(graphs) == len(MODELS)
        del signatures
        with Client(f"127.0.0.1:{server.port}") as client:
            client.retrieve([example(0.6)], 1)
        for label in ("second", "third"):
            assert all(each() for each in graphs)
            version = pushes.push(label)
            wait_for(partial(is_live, server, version))
        assert states(server)[first] == "END"
        wait_for(lambda: not any(each() for each in graphs))
    finally:
        gc.enable()


def test_served_models_need_no_files(serve: Serve, pushes: Pushes) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    wait_for(lambda: server.versions.live == second)
    pushes.retain(1)
    assert not (pushes.root / "retriever" / str(first)).exists()
    assert (ids(server), ids(server, first)) == (b"two-1", b"one-1")
    shutil.rmtree(pushes.root)
    time.sleep(0.2)  # several looks
    assert ids(server) == b"two-1"


def killed_push(pushes: Pushes, part_moved: int) -> None:
    """The state after a push that was killed once a number of parts were in their places: none has a manifest."""
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
def test_a_push_killed_on_its_way_leaves_the_old_version_served(serve: Serve, pushes: Pushes, part_moved: int) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    killed_push(pushes, part_moved)
    time.sleep(0.3)  # several looks
    assert (server.versions.live, ids(server)) == (first, b"one-1")
    assert list(states(server)) == [first]
    PushFolder(str(pushes.root)).recover()  # what a later push does first: it completes the one that was killed
    wait_for(lambda: server.versions.live != first)
    assert ids(server) == b"killed-1-1"


Damage = Callable[[Path], object]
DAMAGE: dict[str, Damage] = {
    "cut short": lambda folder: (folder / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:99]),
    "no graph": lambda folder: (folder / "saved_model.pb").unlink(),
    "no weights": lambda folder: shutil.rmtree(folder / "variables"),
    "no asset": lambda folder: shutil.rmtree(folder / "assets"),
}


def hidden_push(pushes: Pushes, label: str) -> tuple[int, Path]:
    """Pushes a version whose manifest is not there yet; returns its number and where its manifest belongs."""
    other = Pushes(pushes._template, pushes.root.parent / "hidden")
    version = [other.push(f"{label}-{_}") for _ in range(2)][-1]  # its number is not taken yet
    for part in PARTS:
        shutil.move(other.root / part / str(version), pushes.root / part / str(version))
    manifest = pushes.root / "manifests" / f"{version}.json"
    shutil.move(other.root / "manifests" / f"{version}.json", pushes.root / f"{version}.hidden")
    return version, manifest


def unhide(manifest: Path) -> None:
    (manifest.parents[1] / f"{manifest.stem}.hidden").rename(manifest)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_version_that_cannot_be_loaded_leaves_the_old_one_served_until_it_is_repaired(
    serve: Serve, pushes: Pushes, damage: str
) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second, manifest = hidden_push(pushes, "two")
    folder = pushes.root / "retriever" / str(second)
    kept = shutil.copytree(folder, pushes.root / "kept")
    DAMAGE[damage](folder)
    unhide(manifest)
    wait_for(lambda: states(server).get(second) == "END")
    assert (server.versions.live, ids(server)) == (first, b"one-1")
    for model in ("retriever", "query_tower", "item_tower"):  # all or nothing
        state = server.versions.states(model)[second]
        assert (state.name, state.code) == ("END", grpc.StatusCode.UNKNOWN)
        assert f"version {second} cannot be loaded" in state.message
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    wait_for(lambda: server.versions.live == second)
    assert ids(server) == b"two-1-1"


def flip_a_byte(folder: Path) -> None:
    """Other weights of the same size: TensorFlow loads them without a word."""
    (data,) = (folder / "variables").glob("*data*")
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)


def link_out(folder: Path) -> None:
    outside = folder.parents[3] / f"outside-{folder.name}"
    shutil.move(folder, outside)
    folder.symlink_to(outside)


def link_file_out(folder: Path) -> None:
    outside = folder.parents[2] / "outside.pb"
    shutil.move(folder / "saved_model.pb", outside)
    (folder / "saved_model.pb").symlink_to(outside)


UNSOUND: dict[str, tuple[str, Damage, str]] = {
    "another weight": ("retriever", flip_a_byte, "holds something else|has another content than what was pushed"),
    "an extra file": ("query_tower", lambda folder: (folder / "extra").touch(), "extra does not belong there"),
    "a missing file": ("item_tower", lambda folder: (folder / "fingerprint.pb").unlink(), "fingerprint.pb is missing"),
    "a damaged index": ("index", lambda folder: (folder / "ids.arrow").write_bytes(b"x"), "has 1 bytes instead of"),
    "a part that is gone": ("index", shutil.rmtree, r"index/\d+ is missing"),
    "a link out of the folder": ("item_tower", link_out, "leads out of the push folder"),
    "a file that is a link out of the folder": (
        "item_tower",
        link_file_out,
        "saved_model.pb leads out of the push folder",
    ),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_a_version_that_is_not_as_its_manifest_says_is_not_loaded(pushes: Pushes, case: str) -> None:
    part, damage, words = UNSOUND[case]
    first = pushes.push("one")
    second, manifest = hidden_push(pushes, "two")
    damage(pushes.root / part / str(second))
    unhide(manifest)
    versions = Versions(pushes.root, Named)
    versions.refresh()
    assert versions.live == first
    assert re.search(words, versions.states("retriever")[second].message)


@pytest.mark.parametrize("place", ["/etc", "../../etc", "", "retriever/../..", "retriever/\0"])
def test_a_manifest_that_leads_out_of_the_push_folder_is_invalid(
    pushes: Pushes, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    first = pushes.push("one")
    _, manifest = hidden_push(pushes, "two")
    unhide(manifest)
    content = json.loads(manifest.read_text())
    content["parts"]["retriever"] = place
    manifest.write_text(json.dumps(content))
    versions = Versions(pushes.root, Named)
    versions.refresh()
    assert versions.live == first and "expected the places of parts in the push folder" in caplog.text


@pytest.mark.parametrize(
    ("key", "words"),
    [("parts", "found none for item_tower"), ("files", "saved_model.pb does not belong there")],
    ids=["no folder", "no checksums, beside parts with them"],
)
def test_a_manifest_that_lacks_a_part_is_not_loaded(pushes: Pushes, key: str, words: str) -> None:
    first, second = pushes.push("one"), pushes.push("two")
    manifest = pushes.root / "manifests" / f"{second}.json"
    content = json.loads(manifest.read_text())
    del content[key]["item_tower"]
    manifest.write_text(json.dumps(content))
    versions = Versions(pushes.root, Named)
    versions.refresh()
    assert versions.live == first
    assert words in versions.states("item_tower")[second].message


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_load_that_fails_is_tried_again_with_longer_and_longer_waits(
    pushes: Pushes, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing in the folder changes: what was missing (memory, file descriptors) comes back by itself."""
    first = pushes.push("one")
    clock, ready = Clock(), list[bool]()
    tried, faults = list[tuple[float, int]](), list[OSError]()

    def load(name: str, version: int, folder: Path) -> Named:
        tried.append((clock.now, version))
        if version != first and faults:
            raise faults[0]
        return Named(name, version, folder)

    versions = Versions(pushes.root, load, clock)
    versions.refresh()
    second = pushes.push("two")
    tried.clear()
    faults.append(OSError(errno.EMFILE, "Too many open files"))
    readiness = Readiness(versions, stale_seconds=10.0)
    for second_of_the_day in range(16):
        clock.now = float(second_of_the_day)
        versions.refresh()
        versions.refresh()
        ready.append(readiness()[0])
    # After the first attempt the waits are 1, 2, 4 and 8 seconds: attempts at 0, 1, 3, 7 and 15.
    assert [at for at, _ in tried] == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert (versions.live, versions.newest, versions.stale_seconds) == (first, second, 15.0)
    assert ready == [True] * 11 + [False] * 5  # stale since the first attempt, at 0
    assert caplog.text.count("cannot be loaded") == 1  # the same reason is logged once
    faults.clear()
    clock.now = 31.0
    versions.refresh()
    assert (versions.live, versions.stale_seconds, versions.fault) == (second, 0.0, None)


def test_a_file_that_changes_is_tried_at_once(pushes: Pushes) -> None:
    version = pushes.push("one")
    tried = list[str]()

    def load(name: str, version: int, folder: Path) -> Named:
        tried.append(name)
        raise ValueError("damaged")

    versions = Versions(pushes.root, load, Clock())
    for _ in range(3):
        versions.refresh()
    assert len(tried) == 1
    asset = pushes.root / "retriever" / str(version) / "assets" / "label.txt"
    os.utime(asset, ns=(1, 1))
    versions.refresh()
    assert len(tried) == 2


def test_older_versions_are_loaded_where_none_of_the_newest_can_be(pushes: Pushes) -> None:
    first, *later = [pushes.push(label) for label in ("one", "two", "three")]

    def load(name: str, version: int, folder: Path) -> Named:
        if version in later:
            raise MemoryError
        return Named(name, version, folder)

    versions = Versions(pushes.root, load)
    versions.refresh()
    assert versions.live == first


def remove_manifest(root: Path, version: int) -> None:
    (root / "manifests" / f"{version}.json").unlink()


def remove_model(root: Path, version: int) -> None:
    shutil.rmtree(root / "retriever" / str(version))


@pytest.mark.parametrize("remove", [remove_manifest, remove_model])
def test_a_live_version_that_is_removed_by_hand_gives_way_to_the_one_before(
    serve: Serve, pushes: Pushes, remove: Callable[[Path, int], None]
) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    second = pushes.push("two")
    wait_for(lambda: server.versions.live == second)
    remove(pushes.root, second)
    wait_for(lambda: server.versions.live == first)
    assert ids(server) == b"one-1"
    assert states(server)[second] == "END"


def test_only_a_removed_version_that_is_live_and_not_the_last_one_is_dropped(pushes: Pushes) -> None:
    first, second, third = (pushes.push(label) for label in ("one", "two", "three"))

    def load(name: str, version: int, folder: Path) -> Named:
        if version == first:
            raise MemoryError
        return Named(name, version, folder)

    versions = Versions(pushes.root, load)
    versions.refresh()
    remove_manifest(pushes.root, second)  # as retention does: it may still be asked for by its number
    versions.refresh()
    assert versions.live == third and versions.get("retriever", second)
    remove_manifest(pushes.root, third)
    for _ in range(2):
        versions.refresh()
        assert versions.live == second  # it stays, as the first cannot be loaded
    remove_manifest(pushes.root, first)
    versions.refresh()
    assert versions.live == second


def test_a_live_version_whose_manifest_cannot_be_read_for_a_moment_stays(pushes: Pushes) -> None:
    first, second = pushes.push("one"), pushes.push("two")
    versions = Versions(pushes.root, Named)
    versions.refresh()
    manifest = pushes.root / "manifests" / f"{second}.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[:40])
    versions.refresh()
    assert versions.live == second and first in versions.states("retriever")


def test_a_version_is_live_for_all_its_models_at_once(pushes: Pushes) -> None:
    """While the last of its models is being loaded, none of them answers."""
    first = pushes.push("one")
    loading, go = threading.Event(), threading.Event()

    def load(name: str, version: int, folder: Path) -> Named:
        if version != first and name == "retriever":
            loading.set()
            go.wait(900)
        return Named(name, version, folder)

    versions = Versions(pushes.root, load)
    models = ("query_tower", "item_tower", "retriever")

    def answering() -> list[tuple[str, int]]:
        return [(each.name, each.version) for each in (versions.get(model, None) for model in models)]

    versions.refresh()
    second = pushes.push("two")
    thread = threading.Thread(target=versions.refresh)
    thread.start()
    loading.wait(900)
    assert answering() == [(model, first) for model in models]
    assert {versions.states(model)[second].name for model in models} == {"LOADING"}
    go.set()
    thread.join()
    assert answering() == [(model, second) for model in models]


def test_a_version_that_another_thread_loads_is_waited_for_and_not_loaded_again(pushes: Pushes) -> None:
    """Regression: who started a server and asked it to read the folder loaded all models beside its watcher, each twice."""
    pushes.push("one")
    loaded, loading, go = list[str](), threading.Event(), threading.Event()

    def load(name: str, version: int, folder: Path) -> Named:
        loaded.append(name)
        loading.set()
        go.wait(900)
        return Named(name, version, folder)

    versions = Versions(pushes.root, load)
    threads = [threading.Thread(target=versions.refresh) for _ in range(2)]
    threads[0].start()
    loading.wait(900)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(loaded) == ["item_tower", "query_tower", "retriever"]


def test_odd_files_among_the_manifests_are_logged_once_and_stop_nothing(
    pushes: Pushes, caplog: pytest.LogCaptureFixture
) -> None:
    first = pushes.push("one")
    write_odd_files(pushes.root / "manifests")
    versions = Versions(pushes.root, Named)
    for _ in range(3):
        versions.refresh()
    assert versions.live == first
    # All of them but the link to nowhere, which is as a manifest that retention removed since the folder was listed.
    assert caplog.text.count("expected a version's manifest") == 9
    second = pushes.push("two")
    versions.refresh()
    assert versions.live == second


def test_a_manifest_that_is_too_large_is_none(pushes: Pushes, caplog: pytest.LogCaptureFixture) -> None:
    first, second = pushes.push("one"), pushes.push("two")
    manifest = pushes.root / "manifests" / f"{second}.json"
    manifest.write_bytes(manifest.read_bytes() + b" " * LARGEST_MANIFEST)
    versions = Versions(pushes.root, Named)
    versions.refresh()
    assert versions.live == first and f"expected a file of at most {LARGEST_MANIFEST} bytes" in caplog.text


def test_a_push_folder_that_is_away_is_logged_once_and_seen_when_it_is_back(
    pushes: Pushes, caplog: pytest.LogCaptureFixture
) -> None:
    class Counted(Versions):
        looks = 0

        def refresh(self) -> None:
            self.looks += 1
            super().refresh()

    pushes.push("one")
    aside = (pushes.root / "manifests").rename(pushes.root / "aside")
    (pushes.root / "manifests").touch()  # as the folder, a file cannot be listed
    versions = Counted(pushes.root, Named)
    watcher = Watcher(versions, 0.01)
    watcher.start()
    wait_for(lambda: versions.looks > 5)
    assert caplog.text.count("the push folder cannot be read") == 1
    (pushes.root / "manifests").unlink()
    aside.rename(pushes.root / "manifests")
    wait_for(lambda: versions.live)
    watcher.stop()


def request(k: int = 1) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = "retriever", "serving_examples"
    made.inputs["examples"].CopyFrom(tf.make_tensor_proto([example(0.6)]))
    made.inputs["k"].CopyFrom(tf.make_tensor_proto([k]))
    return made


def test_warm_up_requests_run_before_a_version_is_live(serve: Serve, pushes: Pushes) -> None:
    """A request that the model refuses shows that they run: its version never becomes live."""
    model = pushes.model("one") / "retriever"
    write_requests(str(model), [request(), request(2)])
    first = pushes.push("one")
    server = serve(pushes.root)
    assert ids(server) == b"one-1"
    write_requests(str(pushes.model("two") / "retriever"), [request(k=0)])
    second = pushes.push("two")
    wait_for(lambda: states(server).get(second) == "END")
    assert server.versions.live == first
    assert "k: expected at least 1" in server.versions.states("retriever")[second].message


def test_a_warm_up_file_that_is_cut_short_or_too_long_is_refused(serve: Serve, pushes: Pushes) -> None:
    cut = pushes.model("one") / "retriever"
    write_requests(str(cut), [request()])
    (cut / REQUESTS_FILE).write_bytes((cut / REQUESTS_FILE).read_bytes()[:-5])
    long = pushes.model("two") / "retriever"
    write_requests(str(long), [request()] * 1001)
    first, second = pushes.push("one"), pushes.push("two")
    server = serve(pushes.root, wait=False)
    wait_for(lambda: set(states(server).values()) == {"END"} and len(states(server)) == 2)
    assert "truncated" in server.versions.states("retriever")[first].message
    assert "expected at most 1000 Predict requests" in server.versions.states("retriever")[second].message
