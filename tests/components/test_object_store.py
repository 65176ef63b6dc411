"""A push folder on an object store: emulators of s3 and gs, and TensorFlow's `ram://`, which renames files and no folders too."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.io import fileio

from components.pusher import files, labels
from components.pusher.versions import PushFolder
from ndr_client.manifests import Manifests
from pipeline.versions import mirroring
from schemas.errors import UserError
from tests.components.pushes import PARTS, push
from tests.object_stores import SCHEMES, emulated

FIRST, SECOND = 20261124001, 20261124002
# What becomes visible file by file: three files of each part, by a rename each, between the manifest's (staged, in its place). The
# empty folders that are left: one for each part, one for the version; entries are counted, and folders are none.
PUSH = 1 + 4 * 3 + 1
# The manifest's rename; the graph and then two files for each of three models, three of the index; the manifest.
REMOVAL = 1 + 4 * 3 + 1


@pytest.fixture(scope="module", params=["ram", *SCHEMES])
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "ram":
        yield "ram://bucket"
        return
    with emulated(request.param) as address:
        yield address


@pytest.fixture
def root(bucket: str) -> Iterator[str]:
    yield f"{bucket}/serving"
    fileio.rmtree(f"{bucket}/serving")


def stops(first: int, last: int) -> list[tuple[str, int]]:
    """After how many changes a store stops: after any of ram://, which is quick, and a few of others."""
    return [
        *(("ram", changes) for changes in range(first, last + 1)),
        *((scheme, changes) for scheme in SCHEMES for changes in (1, last // 2)),
    ]


def names(root: str) -> list[str]:
    return [f"{place}/{name}" for place, _, found in fileio.walk(root) for name in found]


class StoppedError(Exception):
    pass


@contextlib.contextmanager
def stopped_after(changes: int, root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stops after a number of renames and deletions of objects, and checks after each that no server could load half a model."""
    left, delete_folder = [changes], fileio.rmtree

    def watched(change: Callable[..., Any]) -> Callable[..., None]:
        def call(*arguments: Any, **options: Any) -> None:
            if not left[0]:
                raise StoppedError
            left[0] -= 1
            change(*arguments, **options)
            for name in names(root):
                if graph := re.fullmatch(r"(.*/serving/[a-z_]+/\d+/)saved_model\.pb", name):
                    assert fileio.exists(f"{graph[1]}variables/data") and fileio.exists(f"{graph[1]}assets/vocabulary")

        return call

    remove = watched(fileio.remove)

    def rmtree(folder: str) -> None:
        for name in sorted(names(folder), reverse=True):  # the variables before the graph
            remove(name)
        delete_folder(folder)

    with monkeypatch.context() as patch:
        patch.setattr(fileio, "rename", watched(fileio.rename))
        patch.setattr(fileio, "remove", remove)
        patch.setattr(fileio, "rmtree", rmtree)
        with contextlib.suppress(StoppedError):
            yield


def test_versions_come_and_go(root: str, tmp_path: Path) -> None:
    folder = PushFolder(root)
    first, second = push(root, tmp_path / "one"), push(root, tmp_path / "two")
    assert folder.manifests() == [first, second]
    assert folder.places(second) == {part: f"{root}/{part}/{SECOND}" for part in PARTS}
    with fileio.open(f"{root}/retriever/{SECOND}/saved_model.pb", "rb") as graph:
        assert graph.read() == b"retriever of two"
    assert folder.verify(SECOND) == []
    assert push(root, tmp_path / "two") == second
    restored = folder.restore(first)
    assert (restored.version, restored.files, folder.verify(restored.version)) == (20261124003, first.files, [])
    assert folder.retain(1) == [FIRST, SECOND]
    assert folder.manifests() == [restored]
    assert len(names(root)) == 4 * 3 + 1  # three files of each part, and the manifest, and nothing else is left


@pytest.mark.parametrize(("bucket", "changes"), stops(1, PUSH), indirect=["bucket"])
def test_a_push_stopped_after_any_change_is_put_right(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    folder, finished = PushFolder(root), False
    with stopped_after(changes, root, monkeypatch):
        push(root, tmp_path / "one")
        finished = True
    assert finished == (changes == PUSH)
    assert [each.version for each in folder.manifests()] == ([FIRST] if finished else [])
    assert [each.version for each in folder.recover()] == ([FIRST] if changes < PUSH else [])
    assert push(root, tmp_path / "one").version == FIRST
    assert folder.verify(FIRST) == [] and len(names(root)) == 4 * 3 + 1


@pytest.mark.parametrize(("bucket", "changes"), stops(0, REMOVAL), indirect=["bucket"])
def test_a_removal_stopped_after_any_change_is_put_right(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    folder, finished = PushFolder(root), False
    for name in ("one", "two"):
        push(root, tmp_path / name)
    with stopped_after(changes, root, monkeypatch):
        folder.retain(1)
        finished = True
    assert finished == (changes == REMOVAL)
    assert all(folder.verify(manifest.version) == [] for manifest in folder.manifests())
    folder.retain(1)
    assert [each.version for each in folder.manifests()] == [SECOND]
    assert len(names(root)) == 4 * 3 + 1


def test_a_bucket_is_mirrored_for_servers(root: str, tmp_path: Path) -> None:
    folder, mirrored, said = PushFolder(root), tmp_path / "mirror", list[str]()
    push(root, tmp_path / "one")
    labels.configure(folder)
    labels.assign(folder, "canary", FIRST)
    mirroring.mirror(root, str(mirrored), None, said.append)
    assert said == [f"copied version {FIRST}\nlabels: canary {FIRST}"]
    (pushed,) = Manifests(mirrored).read()  # as the embedded server and the client read it
    assert pushed.version == FIRST and pushed.faults() == []


def test_a_file_holds_what_was_written_whatever_its_name(root: str) -> None:
    fileio.makedirs(root)
    with fileio.open(f"{root}/ids.gz", "wb") as file:
        file.write(b"ids")
    with fileio.open(f"{root}/ids.gz", "rb") as file:
        assert file.read() == b"ids"
    mirrored = files.digests(files.Source(root))
    assert {name: digest.size for name, digest in mirrored.items()} == {"ids.gz": 3}


def test_an_address_without_a_file_system_is_reported() -> None:
    with pytest.raises(
        UserError, match=r"s4://bucket/serving/manifests cannot be used: File system scheme 's4' not implem"
    ):
        PushFolder("s4://bucket/serving").manifests()
    with pytest.raises(UserError, match=r"--set pusher\.destination=DIR"):
        PushFolder("s4://bucket/serving").recover()
