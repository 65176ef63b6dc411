"""The statuses of a step that ends before its node runs; those behind are in end_to_end/test_kubeflow.py."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pytest import MonkeyPatch
from typer.testing import CliRunner

from pipeline import config as configuration
from pipeline import lock, run_node
from pipeline.records import Records, connection, store
from tests.work import Work

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"
APP = typer.Typer()
APP.command()(run_node.step)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def step(*settings: str, **options: str) -> tuple[int, str]:
    """The status and the words of a step."""
    values = {
        "node": "Trainer",
        "run-id": "1",
        "date": "2026-11-24",
        "config": str(SHOP),
        "settings": json.dumps(settings),
    }
    given = {**values, **{name.replace("_", "-"): value for name, value in options.items()}}
    answer = CliRunner().invoke(APP, [part for name, value in given.items() for part in (f"--{name}", value)])
    return answer.exit_code, answer.stderr


@pytest.mark.parametrize(
    "options", [{"settings": "a=b"}, {"settings": '{"a": 1}'}, {"run_id": "../x"}, {"date": "yesterday"}]
)
def test_a_malformed_argument_is_2(options: dict[str, str]) -> None:
    assert step(**options)[0] == 2


def test_a_fault_of_the_configuration_is_1(tmp_path: Path) -> None:
    status, said = step("trainer.epochs=none", f"root={tmp_path}")
    assert status == 1 and "trainer.epochs" in said and "Traceback" not in said


def test_an_error_that_quotes_an_escape_sequence_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    status, said = step(config=str(tmp_path / "\x1b[2J.yaml"))
    assert status == 1 and "\u241b[2J.yaml: no such file" in said and "\x1b" not in said


def test_a_log_line_with_an_escape_sequence_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.run_node", "--node", "\x1b[2J", "--run-id", "1", "--date", "2026-11-24"]
    with lock.exclusive(tmp_path):  # so that the step ends early
        done = subprocess.run(
            [*command, "--config", str(SHOP), "--settings", json.dumps([f"root={tmp_path}"])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 75 and "INFO root: \u241b[2J of run 1" in done.stderr and "\x1b" not in done.stderr


def test_a_text_in_what_the_last_step_prints_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    work = Work(tmp_path)
    run = work.run("2026-11-24")
    work.step(
        run, "RetrievalEvaluator", "evaluation", "ModelEvaluation", refused=json.dumps(["genre=\x1b[2J is worse"])
    )
    work.step(run, "Pusher", "pushed_model", "PushedModel")
    settings = json.dumps([f"root={tmp_path}"])
    arguments = ["--node", "End", "--run-id", run.name.partition(".")[2], "--config", str(SHOP), "--settings", settings]
    answer = CliRunner().invoke(APP, [*arguments, "--date", "2026-11-24"])
    assert answer.exit_code == 0 and "genre=\u241b[2J" in answer.output and "\x1b" not in answer.output


def test_an_image_with_other_code_than_was_compiled_is_1(tmp_path: Path) -> None:
    status, said = step(f"root={tmp_path}", definition="0123456789abcdef")
    assert status == 1 and "compiled from other code or another configuration (0123456789abcdef)" in said


def test_a_day_that_does_not_exist_has_nothing_to_do(tmp_path: Path) -> None:
    """2026-11-28 is a Saturday: a schedule that asks for it succeeds, and its other steps do nothing."""
    settings, day = ("data.closed=[saturday]", f"root={tmp_path}/root"), tmp_path / "day"
    assert step(*settings, node="Begin", date="2026-11-28", day_file=str(day)) == (0, "")
    assert day.read_text() == ""
    assert step(*settings, node="Catalogue", date="2026-11-28") == (0, "")
    config = configuration.load(SHOP, settings)
    (run,) = Records(connection(config)).runs()
    assert (run.state, run.passed_over_for, run.steps) == ("passed over", "closed", ())


def test_a_node_that_is_not_there_is_1(tmp_path: Path) -> None:
    status, said = step(f"root={tmp_path}", node="Trainr")
    assert status == 1 and "Traceback" not in said


def test_a_root_that_is_in_use_is_75(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path):
        assert step(f"root={tmp_path}")[0] == 75
    with lock.shared(tmp_path):
        assert step(f"root={tmp_path}", node="Begin")[0] == 75
        assert step(f"root={tmp_path}")[0] == 1  # nodes go side by side; this one's run is unknown


def test_a_metadata_server_that_cannot_be_reached_is_75(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", ())
    (tmp_path / "password").write_text("word")
    server = f"metadata={{store: mysql, host: 127.0.0.1, port: 1, user: ndr, password: {{file: {tmp_path}/password}}}}"
    status, said = step(f"root={tmp_path}", server)
    assert status == 75 and "127.0.0.1:1," in said and "Traceback" not in said


def test_a_root_that_cannot_be_written_is_75(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, said = step(f"root={tmp_path}/file/root")
    assert status == 75 and "Not a directory" in said
