"""The push folder: nothing partial is visible, and what was killed at any point is put right by what comes next."""

import contextlib
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from components.pusher import versions
from components.pusher.versions import PARTS, PushFolder
from schemas.errors import UserError

DAY = date(2026, 11, 24)
# Until a push is complete in staging: for each of two parts copy_dir and its makedirs for two folders; then the manifest
# is written, with a makedirs, and renamed.
STAGED = 2 * 3 + 3
# The whole push: for each part, and for the manifest, a makedirs and a rename; the deletion of the empty staged folder.
PUSH = STAGED + 3 * 2 + 1
# A removal of two versions, each: makedirs; a rename for the manifest and for each of two parts; the deletion of 2 x 2
# files in 2 x 2 folders, of the manifest, of the version's folder.
REMOVAL = 2 * (1 + 3 + 4 + 4 + 1 + 1)


def a_model(folder: Path) -> str:
    for part in PARTS:
        (folder / part / "variables").mkdir(parents=True)
        (folder / part / "saved_model.pb").write_text(part)
        (folder / part / "variables" / "data").write_text("weights")
    return str(folder)


def visible(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for part in PARTS for p in (root / part).glob("*"))


class KilledError(Exception):
    pass


@contextlib.contextmanager
def killed_after(operations: int, monkeypatch: pytest.MonkeyPatch):
    """Runs what it holds until so many operations on the file system are done; a tree is deleted entry by entry."""
    left = [operations]

    def mortal(operation: Callable) -> Callable:
        def call(*arguments, **options):
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return operation(*arguments, **options)

        return call

    unlink, rmdir = mortal(os.unlink), mortal(os.rmdir)

    def rmtree(path: str) -> None:
        for folder, folders, files in os.walk(path, topdown=False):
            for name in files:
                unlink(Path(folder, name))
            for name in folders:
                rmdir(Path(folder, name))
        rmdir(path)

    with monkeypatch.context() as patch:
        for name in ("rename", "makedirs"):
            patch.setattr(versions.fileio, name, mortal(getattr(versions.fileio, name)))
        patch.setattr(versions.fileio, "rmtree", rmtree)
        patch.setattr(versions.io_utils, "copy_dir", mortal(versions.io_utils.copy_dir))
        patch.setattr(versions.io_utils, "write_string_file", mortal(versions.io_utils.write_string_file))
        with contextlib.suppress(KilledError):
            yield


def test_both_towers_carry_one_version_named_by_day_and_revision(tmp_path: Path) -> None:
    folder = PushFolder(str(tmp_path / "serving"))
    first = folder.push(a_model(tmp_path / "one"), DAY, "run-1")
    second = folder.push(a_model(tmp_path / "two"), DAY, "run-2")
    assert (first.version, second.version) == (20261124001, 20261124002)
    assert visible(tmp_path / "serving") == [
        "item_tower/20261124001", "item_tower/20261124002", "query_tower/20261124001", "query_tower/20261124002",
    ]  # fmt: skip
    assert [m.run for m in folder.manifests()] == ["run-1", "run-2"]


def test_a_backfilled_day_stays_below_later_days(tmp_path: Path) -> None:
    folder = PushFolder(str(tmp_path / "serving"))
    today = folder.push(a_model(tmp_path / "one"), DAY, "run-1")
    earlier = folder.push(a_model(tmp_path / "two"), date(2026, 11, 20), "run-2")
    assert earlier.version < today.version


def test_the_same_model_is_pushed_once(tmp_path: Path) -> None:
    folder = PushFolder(str(tmp_path / "serving"))
    model = a_model(tmp_path / "one")
    assert folder.push(model, DAY, "run-1") == folder.push(model, DAY, "run-2")


def test_a_manifest_that_was_cut_short_is_named(tmp_path: Path) -> None:
    folder = PushFolder(str(tmp_path / "serving"))
    folder.push(a_model(tmp_path / "one"), DAY, "run-1")
    path = tmp_path / "serving" / "manifests" / "20261124001.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=f"{path}: expected a version's manifest"):
        folder.manifests()


def test_a_model_that_another_took_the_place_of_on_its_day_becomes_the_newest_again(tmp_path: Path) -> None:
    """Regression: a day run again as it was at first kept serving what had been in between."""
    one, other = a_model(tmp_path / "one"), a_model(tmp_path / "other")
    folder = PushFolder(str(tmp_path / "serving"))
    pushed = [folder.push(model, DAY, "run").version for model in (one, other, one, one)]
    assert pushed == [20261124001, 20261124002, 20261124003, 20261124003]


@pytest.mark.parametrize("operations", range(PUSH + 1))
def test_a_push_killed_after_any_operation_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    model, finished = a_model(tmp_path / "one"), False
    with killed_after(operations, monkeypatch):
        PushFolder(str(tmp_path / "serving")).push(model, DAY, "killed")
        finished = True
    assert finished == (operations == PUSH)
    for place in visible(tmp_path / "serving"):  # whatever is visible is whole
        assert (tmp_path / "serving" / place / "variables" / "data").read_text() == "weights"
    manifest = PushFolder(str(tmp_path / "serving")).push(model, DAY, "again")
    assert manifest.version == 20261124001
    assert visible(tmp_path / "serving") == ["item_tower/20261124001", "query_tower/20261124001"]
    assert not list((tmp_path / "serving" / ".staging").glob("*"))


def three_versions(root: Path) -> PushFolder:
    folder = PushFolder(str(root / "serving"))
    for number in (1, 2, 3):
        folder.push(a_model(root / f"model-{number}"), DAY, f"run-{number}")
    return folder


def numbers(folder: PushFolder) -> list[int]:
    return [manifest.version for manifest in folder.manifests()]


def test_the_newest_versions_are_retained(tmp_path: Path) -> None:
    folder = three_versions(tmp_path)
    backfilled = folder.push(a_model(tmp_path / "late"), date(2026, 11, 20), "run-4")  # the last push, not the newest
    assert folder.retain(2) == [backfilled.version, 20261124001]
    assert numbers(folder) == [20261124002, 20261124003]
    assert visible(tmp_path / "serving") == [
        "item_tower/20261124002", "item_tower/20261124003", "query_tower/20261124002", "query_tower/20261124003",
    ]  # fmt: skip
    assert not list((tmp_path / "serving" / ".trash").glob("*"))
    assert folder.retain(2) == []
    assert folder.push(a_model(tmp_path / "next"), DAY, "run-5").version == 20261124004


def test_the_highest_version_is_never_removed(tmp_path: Path) -> None:
    folder = three_versions(tmp_path)
    with pytest.raises(ValueError, match="at least 1, received 0"):
        folder.retain(0)
    assert folder.retain(1) == [20261124001, 20261124002]
    assert folder.retain(1) == []
    assert numbers(folder) == [20261124003]


def test_nothing_is_retained_where_nothing_was_pushed(tmp_path: Path) -> None:
    assert PushFolder(str(tmp_path / "serving")).retain(1) == []


@pytest.mark.parametrize("operations", range(REMOVAL + 1))
def test_a_removal_killed_after_any_operation_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    folder, root = three_versions(tmp_path), tmp_path / "serving"
    finished = False
    with killed_after(operations, monkeypatch):
        folder.retain(1)
        finished = True
    assert finished == (operations == REMOVAL)
    for version in numbers(folder):  # whatever looks complete is complete
        for part in PARTS:
            assert (root / part / str(version) / "saved_model.pb").read_text() == part
            assert (root / part / str(version) / "variables" / "data").read_text() == "weights"
    for place in visible(root):  # and no part is there in part
        assert (root / place / "variables" / "data").read_text() == "weights"
    assert 20261124003 in numbers(folder)
    folder.recover()  # a removal that has begun is completed, one that has not is none
    assert visible(root) == sorted(f"{part}/{version}" for part in PARTS for version in numbers(folder))
    assert not list((root / ".trash").glob("*"))
    folder.retain(1)
    assert visible(root) == ["item_tower/20261124003", "query_tower/20261124003"]


@pytest.mark.parametrize("operations", range(PUSH + 1))
def test_a_push_killed_after_any_operation_survives_a_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    folder, late = three_versions(tmp_path), a_model(tmp_path / "late")
    with killed_after(operations, monkeypatch):
        folder.push(late, date(2026, 11, 20), "run-4")  # lower than what is there
    pushed = [20261120001] if operations >= STAGED else []
    assert folder.retain(4) == []
    assert numbers(folder) == [*pushed, 20261124001, 20261124002, 20261124003]
    assert visible(tmp_path / "serving") == sorted(f"{part}/{version}" for part in PARTS for version in numbers(folder))


def test_a_part_that_is_of_no_push_is_left_alone(tmp_path: Path) -> None:
    folder = three_versions(tmp_path)
    by_hand = tmp_path / "serving" / "query_tower" / "7"
    by_hand.mkdir()
    folder.retain(1)
    assert by_hand.exists()
