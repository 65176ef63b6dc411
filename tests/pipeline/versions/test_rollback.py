"""Rolls back bad versions by the command line, in real push folders and a real ML Metadata; only the training is made up."""

import json
import sys
from datetime import date
from pathlib import Path

import pytest
from tfx.dsl.io import fileio
from tfx.types import artifact_utils

from components import recorded
from components.resolver.earlier import BLESSING_KEY, MODEL_KEY, BlessedBefore
from pipeline import cli, lock
from pipeline.records import Records, connection
from tests.work import Work

FIRST, SECOND, THIRD = 20261121001, 20261122001, 20261123001


class Pushed:
    """Days that were blessed and pushed, and the command line over them."""

    def __init__(
        self, root: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, days: tuple[int, ...]
    ) -> None:
        self.work, self._capture, self._patch = Work(root), capture, patch
        self.days = [self.work.day(f"2026-11-{day}", blessed=True) for day in days]
        for each in self.days:
            self.work.push(each)

    def ndr(self, *arguments: str) -> tuple[int, str, str]:
        """Its status, and what it printed to both streams; in this process, which has TFX loaded."""
        self._patch.setattr(sys, "argv", ["ndr", *arguments, "--set", f"root={self.work.places.root}"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *self._capture.readouterr())

    def live(self) -> tuple[int, str]:
        """The version that servers take, and the number of the model whose content it holds."""
        newest = max(int(folder.name) for folder in (self.work.serving / "query_tower").iterdir())
        (content,) = {path.read_text() for path in self.work.serving.glob(f"*_tower/{newest}/saved_model.pb")}
        return newest, content

    def withdrawn(self) -> list[int]:
        """The numbers of the days whose models are marked."""
        blessings = [self.work.store.get_artifacts_by_id([day.blessing.id])[0] for day in self.days]
        return [n for n, b in enumerate(blessings, 1) if b.custom_properties[recorded.WITHDRAWN].int_value]

    def base(self) -> int:
        """The number of the day that the 24th continues from."""
        known = {
            key: [
                artifact_utils.deserialize_artifact(self.work.store.get_artifact_type(kind), artifact)
                for artifact in self.work.store.get_artifacts_by_type(kind)
            ]
            for key, kind in ((MODEL_KEY, "Model"), (BLESSING_KEY, "ModelBlessing"))
        }
        span = (date(2026, 11, 24) - date(1970, 1, 1)).days
        (model,) = BlessedBefore(span).resolve_artifacts(self.work.store, known)[MODEL_KEY]
        return [day.model.id for day in self.days].index(model.id) + 1

    def content(self, number: int) -> str:
        return str(self.days[number - 1].model.id)


@pytest.fixture
def pushed(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pushed:
    return Pushed(tmp_path / "root", capfd, monkeypatch, days=(21, 22, 23))


def test_the_versions_are_listed(pushed: Pushed) -> None:
    assert pushed.ndr("push", "--rollback", "--to", str(FIRST))[0] == 0
    status, printed, _ = pushed.ndr("push")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    assert (status, rows) == (0, [
        [str(FIRST), "2026-11-21", "", "", "0.2500", "", ""],
        [str(SECOND), "2026-11-22", "", "", "0.2500", "", ""],
        [str(THIRD), "2026-11-23", "", "", "0.2500", "", ""],
        [str(THIRD + 1), "2026-11-21", "", str(FIRST), "0.2500", "", "live"],
    ])  # fmt: skip
    listed = json.loads(pushed.ndr("push", "--json")[1])
    assert [(each["version"], each["restores"], each["live"]) for each in listed] == [
        (FIRST, None, False), (SECOND, None, False), (THIRD, None, False), (THIRD + 1, FIRST, True),
    ]  # fmt: skip
    assert listed[0]["metrics"] == {"mrr": 0.125, "recall_at_50": 0.25}


def test_where_nothing_was_pushed_there_is_nothing_to_list_or_to_go_back_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Pushed(tmp_path, capfd, monkeypatch, days=())
    assert json.loads(empty.ndr("push", "--json")[1]) == []
    assert empty.ndr("push") == (0, f"Nothing was pushed to {empty.work.serving} yet.\n", "")
    status, _, error = empty.ndr("push", "--rollback")
    assert (status, error) == (1, "Expected a version to go back to, and nothing was pushed yet.\n")


def test_each_rollback_goes_back_one_further_and_withdrawn_models_are_no_base(pushed: Pushed) -> None:
    status, printed, _ = pushed.ndr("push", "--rollback")
    assert status == 0
    assert printed.splitlines() == [
        f"Version {THIRD + 1} is live: the content of {SECOND} (2026-11-22), in place of {THIRD} (2026-11-23).",
        f"The model of {THIRD} (2026-11-23) is withdrawn: no day continues from it, and days that did count as changed. "
        f"To bring it back: ndr push --rollback --to {THIRD}",
    ]
    assert (pushed.live(), pushed.withdrawn(), pushed.base()) == ((THIRD + 1, pushed.content(2)), [3], 2)
    assert pushed.ndr("push", "--rollback")[0] == 0
    assert (pushed.live(), pushed.withdrawn(), pushed.base()) == ((THIRD + 2, pushed.content(1)), [2, 3], 1)
    status, _, error = pushed.ndr("push", "--rollback")
    assert (status, error) == (1, f"Expected a version to go back to, found none in force before {THIRD + 2}.\n")
    assert pushed.live() == (THIRD + 2, pushed.content(1))


def test_a_refresh_is_rolled_back_and_its_model_stays(pushed: Pushed) -> None:
    refreshed, _ = pushed.work.refresh(pushed.days[-1], "2026-11-24")
    again, _ = pushed.work.refresh(pushed.days[-1], "2026-11-24")
    assert (refreshed, again) == (THIRD + 1, THIRD + 2)
    status, told, _ = pushed.ndr("push", "--rollback", "--to", str(THIRD))
    assert status == 0 and f"The catalogue of {refreshed} (2026-11-23) is rolled back" in told
    assert f"The catalogue of {again} (2026-11-23) is rolled back" in told and "withdrawn" not in told
    assert (pushed.withdrawn(), pushed.base()) == ([], 3)
    # Back to the day before, its model goes along.
    later, _ = pushed.work.refresh(pushed.days[-1], "2026-11-24")
    told = pushed.ndr("push", "--rollback", "--to", str(SECOND))[1]
    assert f"The model of {later} (2026-11-23) is withdrawn" in told
    assert (pushed.withdrawn(), pushed.base()) == ([3], 2)


def test_a_rollback_to_a_withdrawn_version_lifts_the_mark(pushed: Pushed) -> None:
    pushed.work.roll_back(FIRST)
    assert pushed.withdrawn() == [2, 3]
    assert pushed.work.roll_back(THIRD).withdrawn == []
    assert (pushed.live(), pushed.withdrawn(), pushed.base()) == ((THIRD + 2, pushed.content(3)), [2], 3)


def test_the_run_of_a_withdrawn_model_says_so(pushed: Pushed) -> None:
    pushed.work.roll_back()
    records = Records(connection(pushed.work.places))
    assert [(run.blessed, run.withdrawn) for run in records.runs()] == [(True, False), (True, False), (True, True)]
    status, printed, _ = pushed.ndr("runs")
    assert status == 0 and printed.count("withdrawn") == 1


def test_other_days_blessings_are_not_written(pushed: Pushed) -> None:
    # TFX's cache asks for inputs that are the same to the byte, time of update included.
    before = pushed.work.store.get_artifacts_by_id([pushed.days[0].blessing.id, *(day.model.id for day in pushed.days)])
    pushed.work.roll_back()
    assert pushed.work.store.get_artifacts_by_id([each.id for each in before]) == before


def test_models_unknown_to_ml_metadata_are_rolled_back_too(pushed: Pushed) -> None:
    pushed.work.places.metadata_path.unlink()
    status, printed, _ = pushed.ndr("push", "--rollback")
    assert status == 0 and f"ML Metadata does not know the model of {THIRD} (2026-11-23)" in printed
    assert pushed.live() == (THIRD + 1, pushed.content(2))
    assert not pushed.work.places.metadata_path.exists()


def test_a_version_that_is_not_whole_is_not_gone_back_to(pushed: Pushed) -> None:
    (pushed.work.serving / "item_tower" / str(SECOND) / "saved_model.pb").write_text("torn")
    status, _, error = pushed.ndr("push", "--rollback")
    assert status == 1 and error == (
        f"{pushed.work.serving}: expected version {SECOND} as it was pushed, but item_tower/{SECOND}/saved_model.pb has 4 bytes "
        "instead of 1. Nothing was changed. Name another: --to VERSION.\n"
    )
    assert (pushed.live(), pushed.withdrawn()) == ((THIRD, pushed.content(3)), [])
    assert pushed.ndr("push", "--rollback", "--to", str(FIRST))[0] == 0


def test_an_unknown_version_is_reported_with_the_existing_ones(pushed: Pushed) -> None:
    status, _, error = pushed.ndr("push", "--rollback", "--to", "7")
    assert (status, error) == (
        1, f"Expected a version that is in the push folder, received 7. There are: {FIRST}, {SECOND}, {THIRD}.\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [("--to", "20261122001"), ("--rollback", "--to", "0"), ("--rollback", "--to", "x"), ("--rollback", "--json")],
)
def test_invalid_arguments_are_a_usage_error(pushed: Pushed, arguments: tuple[str, ...]) -> None:
    status, _, error = pushed.ndr("push", *arguments)
    assert status == 2 and "Usage" in error
    assert pushed.live() == (THIRD, pushed.content(3))


def test_a_rollback_waits_for_no_run_and_a_list_needs_no_lock(pushed: Pushed) -> None:
    with lock.exclusive(pushed.work.places.root):
        status, _, error = pushed.ndr("push", "--rollback")
        assert status == 1 and "is in use by another run" in error
        assert pushed.ndr("push", "--json")[0] == 0


# Renamed are the staged manifest, which makes it complete there; two towers; the manifest again.
@pytest.mark.parametrize("renames", range(4))
def test_a_rollback_that_was_killed_is_completed_once(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    left, rename = iter(range(renames)), fileio.rename

    def mortal(*arguments: str, **options: bool) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        rename(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fileio, "rename", mortal)
        with pytest.raises(KeyboardInterrupt):
            pushed.work.roll_back()
    assert pushed.withdrawn() == [3]
    done = pushed.work.roll_back()
    assert (done.live.version, done.live.restores, done.instead_of.version) == (THIRD + 1, SECOND, THIRD)
    assert [each.version for each in done.withdrawn] == [THIRD]
    assert (pushed.live(), pushed.withdrawn()) == ((THIRD + 1, pushed.content(2)), [3])


def test_labels_are_given_promoted_listed_and_moved_by_a_rollback(pushed: Pushed) -> None:
    assert pushed.ndr("push", "--label", "stable", "--to", str(FIRST)) == (0, f"stable: version {FIRST}\n", "")
    assert pushed.ndr("push", "--label", "canary")[:2] == (0, f"canary: version {THIRD}\nstable: version {FIRST}\n")
    assert pushed.ndr("promote")[:2] == (0, f"canary: version {THIRD}\nstable: version {THIRD}\n")
    listed = json.loads(pushed.ndr("push", "--json")[1])
    assert [each["labels"] for each in listed] == [[], [], ["canary", "stable"]]
    assert "canary, stable" in pushed.ndr("push")[1]
    assert pushed.ndr("push", "--rollback")[0] == 0
    # Content of the second; the number that stays valid whenever the rollback is killed.
    assert pushed.ndr("promote", "stable", "canary")[1] == f"canary: version {SECOND}\nstable: version {SECOND}\n"
    assert pushed.ndr("push", "--unlabel", "canary")[1] == f"stable: version {SECOND}\n"
    status, _, error = pushed.ndr("promote")
    assert (status, error) == (1, "Expected a label that a version has, received 'canary'. There are: stable.\n")
    status, _, error = pushed.ndr("push", "--label", "a", "--rollback")
    assert status == 2 and "expected one of --rollback, --label, --unlabel and --json" in error
