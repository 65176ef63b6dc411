"""The push folder: nothing partial is visible, and what was killed at any point is put right by what comes next."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tfx.dsl.io import fileio

from components.pusher.files import Source
from components.pusher.manifest import find, in_force, rollback_source
from components.pusher.versions import PushFolder
from schemas.errors import UserError
from tests.components.pushes import DAY, INDEX_FILES, MODELS, PARTS, push, sources
from tests.odd_manifests import write_odd_files

FIRST, SECOND, THIRD = 20261124001, 20261124002, 20261124003


class KilledError(Exception):
    pass


@contextlib.contextmanager
def changes(before: Callable[[str], None]) -> Iterator[None]:
    """Calls a function before each change of the file system, with its name and what it changes; a tree goes entry by entry."""

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before(f"{operation.__name__} {arguments[-1]!s}")
            return operation(*arguments, **options)

        return call

    unlink, rmdir, open_file = watched(os.unlink), watched(os.rmdir), fileio.open
    create = watched(open_file)

    def rmtree(path: str) -> None:
        for folder, folders, names in os.walk(path, topdown=False):
            for name in names:
                unlink(Path(folder, name))
            for name in folders:
                rmdir(Path(folder, name))
        rmdir(path)

    def open_watched(path: str, mode: str = "r") -> Any:
        if "w" not in mode:
            return open_file(path, mode)
        file = create(path, mode)
        file.write = watched(file.write)
        return file

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "makedirs", "remove"):
            patch.setattr(fileio, name, watched(getattr(fileio, name)))
        patch.setattr(fileio, "rmtree", rmtree)
        patch.setattr(fileio, "open", open_watched)
        yield


@contextlib.contextmanager
def killed_after(operations: int) -> Iterator[None]:
    """Runs its body until a number of changes of the file system are done."""
    left = [operations]

    def before(_: str) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1

    with contextlib.suppress(KilledError), changes(before):
        yield


def changes_of(action: Callable[[Path], object]) -> list[str]:
    """What an action changes, in order, of a folder with two versions."""
    made: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("one", "two"):
            push(Path(folder, "serving"), Path(folder, name))
        with changes(made.append):
            action(Path(folder))
    return made


PUSHED = changes_of(lambda folder: push(folder / "serving", folder / "three"))
PUSH, REMOVAL = len(PUSHED), len(changes_of(lambda folder: PushFolder(str(folder / "serving")).retain(1)))
# The changes until a version is complete in staging: the last of them gives its manifest its name there.
STAGED = 1 + next(
    number for number, change in enumerate(PUSHED) if re.fullmatch(r"rename .*/\.staging/\d+/manifest\.json", change)
)


def visible(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for part in PARTS for p in (root / part).glob("*"))


def everything(*versions: int) -> list[str]:
    return sorted(f"{part}/{version}" for part in PARTS for version in versions)


def numbers(root: Path) -> list[int]:
    return [manifest.version for manifest in PushFolder(str(root)).manifests()]


def content(root: Path, version: int) -> str:
    """The name of the one model that every file of a version is of."""
    (name,) = {
        path.read_text().rpartition(" of ")[2]
        for part in PARTS
        for path in (root / part / str(version)).rglob("*")
        if path.is_file() and path.stat().st_size
    }
    return name


def whole(root: Path) -> bool:
    """Whether all that is visible is, whether or not it has a manifest yet."""
    expected = {**dict.fromkeys(MODELS, 3), "index": 3}
    return all(
        len([path for path in folder.rglob("*") if path.is_file()]) == expected[part]
        and all(path.stat().st_size or path.name == "vocabulary" for path in folder.rglob("*") if path.is_file())
        for part in PARTS
        for folder in (root / part).glob("*")
    )


def test_all_parts_carry_one_version_named_by_day_and_revision(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    first, second = push(root, tmp_path / "one"), push(root, tmp_path / "two")
    assert (first.version, second.version) == (FIRST, SECOND)
    assert visible(root) == everything(FIRST, SECOND)
    assert (content(root, FIRST), content(root, SECOND)) == ("one", "two")
    assert [m.run for m in PushFolder(str(root)).manifests()] == ["run of one", "run of two"]
    assert sorted(path.name for path in (root / "index" / str(FIRST)).iterdir()) == sorted(INDEX_FILES)


def test_a_manifest_has_checksums_and_metrics(tmp_path: Path) -> None:
    push(tmp_path / "serving", tmp_path / "one", metrics={"recall_at_50": 0.31})
    written = json.loads((tmp_path / "serving" / "manifests" / f"{FIRST}.json").read_text())
    assert (written["day"], written["model"], written["restores"]) == ("2026-11-24", str(tmp_path / "one"), None)
    assert written["metrics"] == {"recall_at_50": 0.31}
    assert written["files"].keys() == written["parts"].keys() == set(PARTS)
    # `item_tower of one` has 17 letters.
    of_graph = {"size": 17, "sha256": hashlib.sha256(b"item_tower of one").hexdigest()}
    nothing = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert written["files"]["item_tower"] == {
        "assets/vocabulary": nothing, "saved_model.pb": of_graph, "variables/data": of_graph,
    }  # fmt: skip
    assert written["files"]["index"].keys() == set(INDEX_FILES)


def test_a_backfilled_day_stays_below_later_days(tmp_path: Path) -> None:
    today = push(tmp_path / "serving", tmp_path / "one")
    earlier = push(tmp_path / "serving", tmp_path / "two", date(2026, 11, 20))
    assert earlier.version < today.version


def test_the_same_content_is_pushed_once(tmp_path: Path) -> None:
    root, model = tmp_path / "serving", tmp_path / "one"
    assert push(root, model) == push(root, model, run="again")


def test_another_index_to_the_same_model_is_another_version(tmp_path: Path) -> None:
    root, parts = PushFolder(str(tmp_path / "serving")), sources(tmp_path / "one")
    first = root.push(parts, DAY, "run", "model", {})
    sources(tmp_path / "other")
    other = {**parts, "index": Source(str(tmp_path / "other" / "index"), INDEX_FILES)}
    second = root.push(other, DAY, "run", "model", {})
    assert (first.version, second.version) == (FIRST, SECOND)
    assert root.push(other, DAY, "run", "model", {}) == second


def test_a_version_that_was_damaged_is_pushed_again(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    (root / "retriever" / str(FIRST) / "saved_model.pb").unlink()
    assert push(root, tmp_path / "one").version == SECOND


def test_damage_is_named(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    folder = PushFolder(str(root))
    assert folder.verify(FIRST) == []
    (root / "query_tower" / str(FIRST) / "variables" / "data").write_text("query_tower of owe")  # as long
    (root / "item_tower" / str(FIRST) / "saved_model.pb").write_text("item_tower")  # 10 of 17 letters
    (root / "index" / str(FIRST) / "ids.arrow").unlink()
    (root / "index" / str(FIRST) / "ids.arrow.bak").touch()
    (root / "retriever" / str(FIRST)).rename(tmp_path / "lost")
    assert folder.verify(FIRST) == [
        f"query_tower/{FIRST}/variables/data holds something else than was pushed",
        f"item_tower/{FIRST}/saved_model.pb has 10 bytes instead of 17",
        f"retriever/{FIRST} is missing",
        f"index/{FIRST}/ids.arrow is missing",
        f"index/{FIRST}/ids.arrow.bak does not belong there",
    ]
    with pytest.raises(UserError, match=f"received 7. There are: {FIRST}"):
        folder.verify(7)


def test_a_torn_copy_is_never_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, open_file = tmp_path / "serving", fileio.open

    def losing(path: str, mode: str = "r") -> Any:
        file = open_file(path, mode)
        if "w" in mode and path.endswith("item_tower/variables/data"):
            write = file.write
            file.write = lambda chunk: write(chunk[:-3])
        return file

    with monkeypatch.context() as patch:
        patch.setattr(fileio, "open", losing)
        with pytest.raises(UserError, match=r"variables/data has 14 bytes instead of 17\. Nothing was pushed"):
            push(root, tmp_path / "one")
    assert visible(root) == [] and numbers(root) == []
    assert push(root, tmp_path / "one").version == FIRST
    assert PushFolder(str(root)).verify(FIRST) == []


def test_a_part_without_a_file_is_not_pushed(tmp_path: Path) -> None:
    parts = {**sources(tmp_path / "one"), "retriever": Source(str(tmp_path / "none"))}
    with pytest.raises(UserError, match=r"none: expected a part of a version, found no file"):
        PushFolder(str(tmp_path / "serving")).push(parts, DAY, "run", "model", {})
    assert visible(tmp_path / "serving") == []


def test_odd_files_among_the_manifests_are_logged_once_and_stop_no_push(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    write_odd_files(root / "manifests")
    folder = PushFolder(str(root))
    assert [each.version for each in folder.manifests()] == [FIRST]
    assert [each.version for each in folder.manifests()] == [FIRST]
    assert folder.unreadable() == [str(root / "manifests" / f"2026112300{n}.json") for n in (1, 2)]
    assert sum("expected a version's manifest" in line for line in caplog.text.splitlines()) == 10
    assert push(root, tmp_path / "two").version == FIRST + 1
    assert numbers(root) == [FIRST, FIRST + 1]


def test_a_version_that_older_code_pushed_is_read(tmp_path: Path) -> None:
    for tower in ("query_tower", "item_tower"):
        (tmp_path / tower / "20261123001").mkdir(parents=True)
    (tmp_path / "manifests").mkdir()
    older = {
        "version": 20261123001, "day": "2026-11-23", "run": "run", "model": "model",
        "parts": {"query_tower": "query_tower/20261123001", "item_tower": "item_tower/20261123001"},
    }  # fmt: skip
    (tmp_path / "manifests" / "20261123001.json").write_text(json.dumps(older))
    folder = PushFolder(str(tmp_path))
    (manifest,) = folder.manifests()
    assert (manifest.files, manifest.metrics, manifest.restores) == ({}, {}, None)
    assert folder.verify(20261123001) == []
    (tmp_path / "item_tower" / "20261123001").rmdir()
    assert folder.verify(20261123001) == ["item_tower/20261123001 is missing"]


def test_a_model_that_another_took_the_place_of_on_its_day_becomes_the_newest_again(tmp_path: Path) -> None:
    """Regression: a day run again as it was at first kept serving what had been in between."""
    models = [tmp_path / name for name in ("one", "other", "one", "one")]
    assert [push(tmp_path / "serving", model).version for model in models] == [FIRST, SECOND, THIRD, THIRD]


def test_a_day_has_999_revisions(tmp_path: Path) -> None:
    (tmp_path / "retriever" / "20261124998").mkdir(parents=True)  # a version that somebody took apart
    assert push(tmp_path, tmp_path / "one").version == 20261124999
    with pytest.raises(UserError, match=r"at most 999 versions of a day, and 20261124 has had them all"):
        push(tmp_path, tmp_path / "two")
    assert push(tmp_path, tmp_path / "two", date(2026, 11, 25)).version == 20261125001


@pytest.mark.parametrize("operations", range(PUSH + 1))
def test_a_push_killed_after_any_operation_is_put_right(tmp_path: Path, operations: int) -> None:
    root, finished = tmp_path / "serving", False
    push(root, tmp_path / "before", date(2026, 11, 20))
    with killed_after(operations):
        push(root, tmp_path / "one")
        finished = True
    assert finished == (operations == PUSH)
    assert whole(root)
    assert content(root, 20261120001) == "before"  # a server has it all the time
    assert push(root, tmp_path / "one", run="again").version == FIRST
    assert visible(root) == everything(20261120001, FIRST) and content(root, FIRST) == "one"
    assert PushFolder(str(root)).verify(FIRST) == []
    assert not list((root / ".staging").glob("*"))


@pytest.mark.parametrize("operations", range(0, PUSH + 1, 2))
def test_a_rollback_killed_after_any_operation_is_put_right(tmp_path: Path, operations: int) -> None:
    root = three_versions(tmp_path)
    source = PushFolder(str(root)).manifests()[1]
    with killed_after(operations):
        PushFolder(str(root)).restore(source)
    completed = PushFolder(str(root)).recover()
    # Complete in staging is as good as done, and told to whoever recovers it; nothing else is left of it.
    assert [each.restores for each in completed] == ([SECOND] if STAGED <= operations < PUSH else [])
    assert numbers(root) == [FIRST, SECOND, THIRD, *([20261124004] if operations >= STAGED else [])]
    assert visible(root) == everything(*numbers(root)) and whole(root)


def three_versions(folder: Path) -> Path:
    for name in ("one", "two", "three"):
        push(folder / "serving", folder / name)
    return folder / "serving"


def test_a_rollback_is_a_version_of_its_own(tmp_path: Path) -> None:
    root = three_versions(tmp_path)
    folder = PushFolder(str(root))
    second = folder.manifests()[1]
    restored = folder.restore(second)
    assert restored == folder.manifests()[-1]
    assert (restored.version, restored.restores, restored.run) == (20261124004, SECOND, "run of two")
    assert restored.files == second.files
    assert content(root, 20261124004) == "two" and folder.verify(20261124004) == []
    assert visible(root) == everything(FIRST, SECOND, THIRD, 20261124004)  # requests for the third are still answered
    # Its content is that of the second, whichever it was copied from.
    assert folder.restore(restored).restores == SECOND


def test_a_rollbacks_version_is_between_its_day_and_the_next(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    yesterday = push(root, tmp_path / "good", date(2026, 11, 23))
    push(root, tmp_path / "bad")
    restored = PushFolder(str(root)).restore(yesterday)
    assert (restored.version, restored.day) == (SECOND, "2026-11-23")
    # What the same commands would push is there: neither day is pushed again.
    assert push(root, tmp_path / "good", date(2026, 11, 23)) == yesterday
    assert push(root, tmp_path / "bad").version == FIRST
    assert numbers(root) == [yesterday.version, FIRST, SECOND]
    assert push(root, tmp_path / "fixed").version == THIRD
    assert push(root, tmp_path / "next", date(2026, 11, 25)).version == 20261125001


def test_another_model_of_the_restored_day_is_pushed_once(tmp_path: Path) -> None:
    # The rollback's number is of a later day than what it holds, and says nothing of what that day has.
    root = tmp_path / "serving"
    yesterday = push(root, tmp_path / "good", date(2026, 11, 23))
    push(root, tmp_path / "bad")
    PushFolder(str(root)).restore(yesterday)
    assert [push(root, tmp_path / "better", date(2026, 11, 23)).version for _ in range(2)] == [20261123002] * 2


def test_the_newest_version_of_each_of_the_newest_days_is_retained(tmp_path: Path) -> None:
    root = three_versions(tmp_path)
    folder = PushFolder(str(root))
    days = {day: push(root, tmp_path / f"late {day}", date(2026, 11, day)).version for day in (20, 21)}
    # Of the two newest days, the 24th's last and the 21st's; and what was live before the last, for a rollback. The three of one
    # day take none from another.
    assert folder.retain(2) == [days[20], FIRST]
    assert numbers(root) == [days[21], SECOND, THIRD]
    assert visible(root) == everything(days[21], SECOND, THIRD)
    assert not list((root / ".trash").glob("*"))
    assert folder.retain(2) == []
    assert push(root, tmp_path / "next").version == 20261124004
    assert folder.retain(2) == [SECOND]


def test_the_highest_version_is_never_removed(tmp_path: Path) -> None:
    root = three_versions(tmp_path)
    folder = PushFolder(str(root))
    with pytest.raises(ValueError, match="at least 1, received 0"):
        folder.retain(0)
    assert folder.retain(1) == [FIRST, SECOND]
    assert folder.retain(1) == []
    assert numbers(root) == [THIRD]


def test_a_restored_versions_source_may_be_removed_while_it_stays_live(tmp_path: Path) -> None:
    root = three_versions(tmp_path)
    folder = PushFolder(str(root))
    restored = folder.restore(folder.manifests()[0])
    assert folder.retain(1) == [FIRST, SECOND, THIRD]
    assert folder.manifests() == [restored]
    assert content(root, restored.version) == "one" and folder.verify(restored.version) == []


def test_nothing_is_retained_where_nothing_was_pushed(tmp_path: Path) -> None:
    assert PushFolder(str(tmp_path / "serving")).retain(1) == []


@pytest.mark.parametrize("operations", range(REMOVAL + 1))
def test_a_removal_killed_after_any_operation_is_put_right(tmp_path: Path, operations: int) -> None:
    root, finished = tmp_path / "serving", False
    for name in ("one", "two"):
        push(root, tmp_path / name)
    folder = PushFolder(str(root))
    with killed_after(operations):
        folder.retain(1)
        finished = True
    assert finished == (operations == REMOVAL)
    for version in numbers(root):  # whatever looks complete is complete
        assert folder.verify(version) == []
    assert whole(root)  # and no part is there in part
    assert SECOND in numbers(root)
    folder.recover()  # completes a removal that has begun
    assert visible(root) == everything(*numbers(root))
    assert not list((root / ".trash").glob("*"))
    folder.retain(1)
    assert visible(root) == everything(SECOND)


@pytest.mark.parametrize("operations", range(0, PUSH + 1, 3))
def test_a_push_killed_after_any_operation_survives_a_removal(tmp_path: Path, operations: int) -> None:
    root = three_versions(tmp_path)
    with killed_after(operations):
        push(root, tmp_path / "late", date(2026, 11, 20))  # lower than what is there
    pushed = [20261120001] if operations >= STAGED else []
    assert PushFolder(str(root)).retain(4) == [FIRST]
    assert numbers(root) == [*pushed, SECOND, THIRD]
    assert visible(root) == everything(*numbers(root))


def test_a_part_that_is_of_no_push_is_left_alone(tmp_path: Path) -> None:
    root = three_versions(tmp_path)
    by_hand = root / "query_tower" / "7"
    by_hand.mkdir()
    PushFolder(str(root)).retain(1)
    assert by_hand.exists()


def refresh(root: Path, model: Path, base: int, catalogue: str) -> Any:
    """Pushes the towers of a model over another catalogue."""
    made = sources(model)
    for place, names in ((made["retriever"].folder, ("saved_model.pb",)), (made["index"].folder, INDEX_FILES)):
        for name in names:
            Path(place, name).write_text(catalogue)
    return PushFolder(str(root)).refresh(made, base, f"refresh by {catalogue}")


def test_a_refresh_is_the_next_version_of_its_day_with_the_model_of_the_one_it_refreshes(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    first = push(root, tmp_path / "one", metrics={"recall_at_50": 0.31})
    second = refresh(root, tmp_path / "one", FIRST, "noon")
    third = refresh(root, tmp_path / "one", SECOND, "evening")
    assert numbers(root) == [FIRST, SECOND, THIRD] and visible(root) == everything(FIRST, SECOND, THIRD)
    assert (second.refreshes, third.refreshes, first.refreshes) == (FIRST, SECOND, None)
    assert {(each.model, each.day, each.trained_by) for each in (first, second, third)} == {
        (str(tmp_path / "one"), "2026-11-24", "run of one")
    }
    assert (third.run, third.metrics, third.restores) == ("refresh by evening", {"recall_at_50": 0.31}, None)
    assert (root / "index" / str(SECOND) / "index.faiss").read_text() == "noon"


def test_the_same_refresh_is_pushed_once_and_none_where_another_version_went_live(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    done = refresh(root, tmp_path / "one", FIRST, "noon")
    assert refresh(root, tmp_path / "one", FIRST, "noon") == done and numbers(root) == [FIRST, SECOND]
    with pytest.raises(
        UserError, match=f"expected version {FIRST}, which was to be refreshed, to be live, found version"
    ):
        refresh(root, tmp_path / "one", FIRST, "evening")
    nothing = PushFolder(str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="to be live, found nothing"):
        nothing.refresh(sources(tmp_path / "one"), FIRST, "run")
    assert numbers(root) == [FIRST, SECOND]


def test_a_day_that_pushes_its_model_again_does_not_undo_a_refresh(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    first = push(root, tmp_path / "one")
    refresh(root, tmp_path / "one", FIRST, "noon")
    sources(tmp_path / "one")  # what the refresh wrote over
    assert push(root, tmp_path / "one") == first and numbers(root) == [FIRST, SECOND]
    assert push(root, tmp_path / "two").version == THIRD  # another model is another matter


def test_a_refresh_is_rolled_back_and_of_what_was_rolled_back_to_there_is_another(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    refresh(root, tmp_path / "one", FIRST, "noon")
    folder = PushFolder(str(root))
    assert rollback_source(folder.manifests(), None).version == FIRST
    back = folder.restore(find(folder.manifests(), FIRST))
    assert (back.version, back.restores, back.refreshes) == (THIRD, FIRST, None)
    again = refresh(root, tmp_path / "one", THIRD, "evening")
    assert (again.version, again.refreshes, again.restores) == (THIRD + 1, THIRD, None)
    assert [each.version for each in in_force(folder.manifests())] == [THIRD, THIRD + 1]
    # A rollback to a refresh has its catalogue, and is no day's own.
    push(root, tmp_path / "two", date(2026, 11, 25))
    restored = folder.restore(find(folder.manifests(), THIRD + 1))
    assert (restored.refreshes, restored.run, restored.trained_by) == (THIRD, "refresh by evening", "run of one")


def test_what_a_day_pushed_is_retained_however_often_it_is_refreshed(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "old", date(2026, 11, 23))
    push(root, tmp_path / "one")
    for number in range(4):
        refresh(root, tmp_path / "one", FIRST + number, f"hour {number}")
    PushFolder(str(root)).retain(2)
    assert numbers(root) == [20261123001, FIRST, FIRST + 3, FIRST + 4]


@pytest.mark.parametrize("operations", range(0, PUSH, 3))
def test_a_refresh_killed_after_any_operation_is_put_right(operations: int, tmp_path: Path) -> None:
    root = tmp_path / "serving"
    push(root, tmp_path / "one")
    with killed_after(operations):
        refresh(root, tmp_path / "one", FIRST, "noon")
    found = refresh(root, tmp_path / "one", FIRST, "noon")
    assert found.version == SECOND and numbers(root) == [FIRST, SECOND] and not PushFolder(str(root)).verify(SECOND)
    assert not list((root / ".staging").glob("*"))
