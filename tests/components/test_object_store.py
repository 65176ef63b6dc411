"""A push folder on an object store: TensorFlow's `ram://` stands for one, as it renames files and no folders."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pushes import DAY, PARTS, push
from tfx.dsl.io import fileio

from components.pusher import files, tf_serving
from components.pusher.files import Source
from components.pusher.versions import PushFolder
from schemas.errors import UserError

FIRST, SECOND = 20261124001, 20261124002


@pytest.fixture
def root() -> Iterator[str]:
    yield "ram://bucket/serving"
    if fileio.exists("ram://bucket"):
        fileio.rmtree("ram://bucket")


def everything(root: str) -> list[str]:
    return [f"{place}/{name}" for place, _, names in fileio.walk(root) for name in names]


def test_versions_come_and_go(root: str, tmp_path: Path) -> None:
    folder = PushFolder(root)
    first, second = push(root, tmp_path / "one"), push(root, tmp_path / "two")
    assert folder.manifests() == [first, second]
    assert folder.places(second)["retriever"] == f"{root}/retriever/{SECOND}"
    with fileio.open(f"{root}/retriever/{SECOND}/saved_model.pb", "rb") as graph:
        assert graph.read() == b"retriever of two"
    assert folder.verify(SECOND) == []
    assert push(root, tmp_path / "two") == second
    restored = folder.restore(first)
    assert (restored.version, restored.files, folder.verify(restored.version)) == (20261124003, first.files, [])
    assert folder.retain(1) == [FIRST, SECOND]
    assert folder.manifests() == [restored]
    # Nothing is left but that version: three files of each part, and its manifest.
    assert len(everything(root)) == 4 * 3 + 1


class StoppedError(Exception):
    pass


class Watched:
    """Stops after so many changes, looking after each whether a server could load half a model."""

    def __init__(self, patch: pytest.MonkeyPatch, root: str, changes: int) -> None:
        self._root, self._left = root, changes
        for name in ("rename", "remove", "rmtree"):
            patch.setattr(fileio, name, self._watching(getattr(fileio, name)))

    def _watching(self, operation: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> None:
            if not self._left:
                raise StoppedError
            self._left -= 1
            operation(*arguments, **options)
            assert nothing_is_loadable_by_half(self._root)

        return call


def nothing_is_loadable_by_half(root: str) -> bool:
    graphs = [name for name in everything(root) if re.search(r"/serving/[a-z_]+/\d+/saved_model\.pb$", name)]
    return all(fileio.exists(graph.replace("saved_model.pb", "variables/data")) for graph in graphs)


def test_half_a_model_is_never_loadable_and_what_was_killed_is_put_right(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three renames and a deletion for each part; two renames of the manifest, as it is written and as it becomes visible, and
    # a deletion. A removal: the manifest's rename, a deletion of the graph for three parts, one of the rest for four, one at the end.
    for change in range(4 * (3 + 1) + 3 + 1 + 3 + 4 + 1 + 1):
        with monkeypatch.context() as patch:
            Watched(patch, root, change)
            try:
                push(root, tmp_path / "one")
                push_done = True
                PushFolder(root).retain(1)
                push(root, tmp_path / "other", date(2026, 11, 25))
            except StoppedError:
                pass
        fileio.rmtree("ram://bucket")
    assert push_done
