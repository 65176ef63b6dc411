"""The day of a scheduled run: what Kubeflow hands to Begin when a schedule fires, and what Begin makes of it."""

import json
import signal
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import kubeflow_judge
import pytest
import typer
from typer.testing import CliRunner
from work import Work

from pipeline import missed, run_node
from pipeline.metadata import Records
from pipeline.store import connection

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
TAGS = sorted(path.stem for path in kubeflow_judge.ANSWERS.glob("*.json"))
APP = typer.Typer()
APP.command()(run_node.step)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def choice(tag: str) -> list[str]:
    """The arguments of Begin by which it chooses a day, in a run that a schedule of `--days-back 1` started."""
    answer = kubeflow_judge.answer(tag)
    assert answer["scheduled"] == "2026-11-25T04:00:00Z"
    words = dict(pairwise(answer["steps"]["begin"]["command"]))
    return [word for name in ("--date", "--days-back", "--make-up-days") for word in (name, words[name])]


@pytest.mark.parametrize("tag", TAGS)
def test_no_kubeflow_fills_a_day_in(tag: str) -> None:
    assert choice(tag) == ["--date", "", "--days-back", "1", "--make-up-days", "7"]


@pytest.mark.parametrize(("done", "expected"), [((), "2026-11-24"), (("22",), "2026-11-23"), (("22", "23", "24"), "")])
def test_a_schedule_that_fires_on_the_25th_does_the_24th_or_the_oldest_day_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: tuple[str, ...], expected: str
) -> None:
    work = Work(tmp_path)
    for day in done:
        work.step(work.run(f"2026-11-{day}"), "Pusher", "pushed_model", "PushedModel")
    file = tmp_path / "outputs" / "day"
    settings = json.dumps([f"root={tmp_path}"])
    words = [
        "--node",
        "Begin",
        "--run-id",
        "one",
        "--config",
        str(SHOP),
        "--settings",
        settings,
        "--day-file",
        str(file),
    ]
    for now in (25, 26):  # the second attempt begins after midnight
        monkeypatch.setattr(missed, "today", lambda now=now: date(2026, 11, now))
        answer = CliRunner().invoke(APP, [*words, *choice(TAGS[0])])
        assert answer.exit_code == 0, answer.output
        assert file.read_text() == expected
    found = [run for run in Records(connection(work.places)).runs() if run.run.endswith(".one")]
    assert [(run.date, run.state) for run in found] == [
        (expected, "unfinished") if expected else ("2026-11-24", "passed over")
    ]
