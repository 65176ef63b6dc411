"""The day of a run that is given none, as Begin chooses it. What Kubeflow hands to Begin is in test_kubeflow_answers.py."""

import json
import signal
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import run_node
from pipeline.monitoring import missed
from pipeline.records import Records, connection
from tests.work import Work

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
APP = typer.Typer()
APP.command()(run_node.step)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("done", "expected"), [(("22",), "2026-11-23"), (("22", "23", "24"), "")])
def test_begin_does_the_oldest_day_that_is_missing_or_nothing_and_settles_that_once(
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
        answer = CliRunner().invoke(APP, words)
        assert answer.exit_code == 0, answer.output
        assert file.read_text() == expected
    found = [run for run in Records(connection(work.places)).runs() if run.run.endswith(".one")]
    assert [(run.date, run.state) for run in found] == [
        (expected, "unfinished") if expected else ("2026-11-24", "passed over")
    ]
