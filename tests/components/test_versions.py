"""The push folder: nothing half-written is visible, and a push killed at any point is put right by the next."""

import contextlib
from datetime import date
from pathlib import Path

import pytest

from components.pusher import versions
from components.pusher.versions import PARTS, PushFolder
from schemas.errors import UserError

DAY = date(2026, 11, 24)
PUSH = 16  # operations of a push, as intercepted below


def a_model(folder: Path) -> str:
    for part in PARTS:
        (folder / part / "variables").mkdir(parents=True)
        (folder / part / "saved_model.pb").write_text(part)
        (folder / part / "variables" / "data").write_text("weights")
    return str(folder)


def visible(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for part in PARTS for p in (root / part).glob("*"))


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


@pytest.mark.parametrize("operations", range(PUSH + 1))
def test_a_push_killed_after_any_operation_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operations: int
) -> None:
    model, left, finished = a_model(tmp_path / "one"), [operations], False

    class KilledError(Exception):
        pass

    def mortal(operation):
        def call(*arguments, **options):
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return operation(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "makedirs", "rmtree"):
            patch.setattr(versions.fileio, name, mortal(getattr(versions.fileio, name)))
        patch.setattr(versions.io_utils, "copy_dir", mortal(versions.io_utils.copy_dir))
        patch.setattr(versions.io_utils, "write_string_file", mortal(versions.io_utils.write_string_file))
        with contextlib.suppress(KilledError):
            PushFolder(str(tmp_path / "serving")).push(model, DAY, "killed")
            finished = True
    assert finished == (operations == PUSH)
    for place in visible(tmp_path / "serving"):  # whatever is visible is whole
        assert (tmp_path / "serving" / place / "variables" / "data").read_text() == "weights"
    manifest = PushFolder(str(tmp_path / "serving")).push(model, DAY, "again")
    assert manifest.version == 20261124001
    assert visible(tmp_path / "serving") == ["item_tower/20261124001", "query_tower/20261124001"]
    assert not list((tmp_path / "serving" / ".staging").glob("*"))
