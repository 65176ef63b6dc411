"""The command line: its manners, and what it must not pay for."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import config, lock
from schemas.errors import UserError
from tests.waiting import wait_for

NDR = [sys.executable, "-m", "pipeline.cli"]
# As a person's shell has it: what is written reaches the terminal late, and so does the news that it cannot.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
MOVIELENS = Path(config.__file__).parent / "configs" / "movielens.yaml"


def ndr(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NDR, *arguments], capture_output=True, text=True, check=False)


def test_help_and_argument_errors_do_not_import_heavy_modules() -> None:
    # TFX takes 13 seconds to import; a person who asks for help must not wait for it.
    program = (
        "import sys; from pipeline import cli, config, digests, records, terminal, lock, run_node; "
        "from pipeline.checks import doctor; from pipeline.monitoring import metrics, standing; "
        "from pipeline.inspection import differences, find, show, tree; from serving import launch; import ndr_client; "
        "print(sorted({'tensorflow', 'tfx', 'apache_beam', 'pyarrow', 'pandas', 'kfp', 'kfp_server_api'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_run_does_not_import_unused_modules() -> None:
    """Regression: `tfx.v1` imports a client of Vertex AI: a sixth of what a run needs before its first step."""
    script = "import sys, pipeline.config, pipeline.local; print('google.cloud.aiplatform' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_help_names_the_commands() -> None:
    answer = ndr("--help")
    assert answer.returncode == 0
    assert all(
        command in answer.stdout
        for command in (
            "run",
            "backfill",
            "recommend",
            "runs",
            "show",
            "artifacts",
            "lineage",
            "diff",
            "report",
            "push",
            "promote",
            "check",
            "metrics",
            "serve",
            "schema",
            "data",
            "kubeflow",
            "doctor",
        )
    )


@pytest.mark.parametrize("day", ["22-04-1998", "19980422", "1998-W17-3", "0001-01-01"])
def test_a_bad_day_is_a_usage_error(day: str) -> None:
    answer = ndr("run", "--date", day)
    assert answer.returncode == 2
    assert "YYYY-MM-DD" in answer.stderr


def test_a_range_that_ends_before_it_begins_is_a_usage_error() -> None:
    answer = ndr("backfill", "--from", "1998-04-09", "--to", "1998-04-08")
    assert answer.returncode == 2
    assert "expected --to at or after --from" in answer.stderr


def test_a_report_wants_a_range_and_a_place_that_can_be(tmp_path: Path) -> None:
    answer = ndr("report", "--from", "1998-04-09", "--to", "1998-04-08")
    assert (answer.returncode, "expected --to at or after --from" in answer.stderr) == (2, True)
    answer = ndr("report", "-o", str(tmp_path / "none" / "report.html"))
    assert (answer.returncode, "expected --output in an existing folder" in answer.stderr) == (2, True)
    answer = ndr("report", "-o", str(tmp_path), "--set", f"root={tmp_path}")
    assert (answer.returncode, "expected --output to be a file" in answer.stderr) == (2, True)


def test_without_runs_there_is_no_report(tmp_path: Path) -> None:
    answer = ndr("report", "-o", str(tmp_path / "report.html"), "--set", f"root={tmp_path}")
    assert answer.returncode == 1
    assert "no run of the first day to the last day to report on; it knows none. First: ndr run" in answer.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("trainer.epochs=0", "--set: trainer.epochs: input should be greater than 0, received 0"),
        ("trainer.epoch=3", "--set: trainer.epoch: is not a known key"),
        ("trainer", "--set trainer: expected key=value"),
        ("trainer.seed=5000000000", "trainer.seed: input should be less than 4294967296"),
        ("data.window_days=1000000", "data.window_days: input should be less than or equal to 36500"),
        ("data.first_day=2026-02-30", "the value is not valid YAML: '2026-02-30': day is out of range for month"),
        ("root='a[1]'", "root: expected a path without *, ? or ["),
        ("trainer.softmax.temperature=0", "trainer.softmax.temperature: input should be greater than 0, received 0"),
        ("trainer.softmax.correction=log", "trainer.softmax.correction: input should be 'none', 'logq' or"),
        (
            "trainer.frequency.alpha=1.5",
            "trainer.frequency.alpha: input should be less than or equal to 1, received 1.5",
        ),
        ("trainer.frequency.buckets=0", "trainer.frequency.buckets: input should be greater than 0"),
        ("trainer.frequency.hashes=0", "trainer.frequency.hashes: input should be greater than 0"),
        ("evaluator.limits=[{metric: recall_at_7, at_least: 0.1}]", "evaluator.limits.0.metric: expected one of"),
        ("evaluator.limits=[{metric: mrr}]", "received none of them"),
        ("data.split.hours=100000", "holds out the whole window"),
        ("pusher.destination=''", "pusher.destination: string should match pattern"),
        ("pusher.destination='gs://'", "expected a path or an address such as gs://bucket/serving, received 'gs://'"),
        ("pusher.destination=GS://bucket", "expected a path or an address"),
        ("pusher.destination=pipeline_root/x", "--set: pusher.destination: expected a folder beside"),
        ("pusher.destination=x/../pipeline_root", "where the steps leave their artifacts"),
        ("pusher.destination=.", "received '.'"),
        ("data.interactions.path=x/{YYYY}", "expected all of {YYYY}, {MM}, {DD} or none"),
    ],
)
def test_a_bad_setting_is_refused_with_its_key(setting: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        config.load(MOVIELENS, [setting])
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("destination", "folder"),
    [
        ("serving", "/shop/serving"),
        ("models/live/", "/shop/models/live"),
        ("/srv/models", "/srv/models"),
        ("gs://bucket/shop/", "gs://bucket/shop"),
    ],
)
def test_the_push_folder_is_below_the_root_or_at_an_address(destination: str, folder: str) -> None:
    assert config.load(MOVIELENS, ["root=/shop", f"pusher.destination={destination}"]).serving == folder
    assert config.load(MOVIELENS, ["root=/shop"]).serving == "/shop/serving"


def test_items_that_have_no_feature_but_their_id_are_spoken_of(tmp_path: Path) -> None:
    assert config.load(MOVIELENS).cautions() == []
    # A day without days before it: histories are of that day, requests are not.
    (caution,) = config.load(MOVIELENS, ["data.window_days=1", "data.history_days=0", "data.split.hours=12"]).cautions()
    assert "history_days: with 0 and data.window_days: 1" in caution and "last 20 items of any day" in caution
    assert config.load(MOVIELENS, ["data.window_days=1", "data.split.hours=12"]).cautions() == []
    features = (MOVIELENS.parent / "../../schemas/movielens/features.yaml").read_text()
    own, _, content = features.partition("  movie_id: {kind: id, table: film}\n")
    (tmp_path / "features.yaml").write_text(
        own.replace("  genre: {width: 8, hash_buckets: 64}\n", "").replace(
            "  year: {width: 8, hash_buckets: 256}\n", ""
        )
        + "  movie_id: {kind: id, table: film}\n"
    )
    assert "genres" in content
    (caution,) = config.load(MOVIELENS, [f"dataset={tmp_path}"]).cautions()
    assert caution.startswith(f"{tmp_path}/features.yaml: item: items have no feature but their id")


def test_a_users_mistake_has_no_traceback(tmp_path: Path) -> None:
    answer = ndr("runs", "--config", str(tmp_path / "none.yaml"))
    assert (answer.returncode, answer.stderr) == (1, f"{tmp_path}/none.yaml: no such file.\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nroot: 2026-02-30\n", "bad.yaml:2: not valid YAML: '2026-02-30': day is out of range"),
        ("a: &x [*x]\n", "bad.yaml:1: not valid YAML: a part of it contains itself"),
        ("base: &b {x: 1}\nname: {<<: *b}\n", "bad.yaml"),
    ],
)
def test_a_bad_yaml_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError) as refusal:
        config.load(tmp_path / "bad.yaml")
    assert sentence in str(refusal.value)


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = ndr("run", "--date", "1998-04-22", "--set", f"root={tmp_path}/file/root")
    assert answer.returncode == 1
    assert "cannot be used: Not a directory" in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.parametrize(("redirection", "status"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("> /dev/full", 1)])
def test_a_terminal_that_takes_nothing_ends_without_a_traceback(tmp_path: Path, redirection: str, status: int) -> None:
    command = f"{' '.join(NDR)} runs --json --set root={tmp_path} {redirection}"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=BUFFERED)
    assert "Traceback" not in answer.stderr and "Exception ignored" not in answer.stderr
    assert answer.returncode == status


@pytest.fixture
def gone() -> Iterator[int]:
    """The writing end of a pipe whose reader has gone, as `| head` does when it has seen enough."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path, gone: int) -> None:
    command = [*NDR, "runs", "--json", "--set", f"root={tmp_path}"]
    answer = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED)
    assert (answer.returncode, answer.stderr) == (1, "")


def test_work_continues_after_the_reader_closed_the_pipe(tmp_path: Path, gone: int) -> None:
    program = (
        "from pathlib import Path; from pipeline.terminal import quiet_terminal\n"
        "with quiet_terminal(Path('logs'), 'run') as (console, log):\n"
        "    for n in range(1000): console.print(n)\n"
        "    Path('done').touch()\n"
    )
    environment = {**BUFFERED, "PYTHONPATH": str(MOVIELENS.parents[2])}
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, check=False, cwd=tmp_path, env=environment)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert (tmp_path / "done").exists()


def test_a_root_that_the_system_refuses_has_no_traceback(tmp_path: Path) -> None:
    answer = ndr("runs", "--set", f"root={tmp_path}/{'a' * 300}")
    assert answer.returncode == 1
    assert "File name too long" in answer.stderr and "Traceback" not in answer.stderr


def test_an_unknown_beam_runner_is_named(tmp_path: Path) -> None:
    answer = ndr("run", "--date", "1998-04-22", "--set", f"root={tmp_path}", "--set", "beam.options=[--runner=Flynk]")
    assert answer.returncode == 1
    assert "expected a runner that Beam has here, received 'Flynk'" in answer.stderr


def test_no_runs_is_an_empty_list(tmp_path: Path) -> None:
    answer = ndr("runs", "--json", "--set", f"root={tmp_path}")
    assert json.loads(answer.stdout) == []


def test_a_file_that_is_not_ml_metadata_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite").write_text("something else")
    answer = ndr("runs", "--set", f"root={tmp_path}")
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"{tmp_path}/metadata.sqlite: expected ML Metadata's SQLite file")
    assert "Traceback" not in answer.stderr


def test_the_version_names_the_commit() -> None:
    answer = ndr("--version")
    assert answer.returncode == 0
    assert re.fullmatch(r"ndr \d+\.\d+\.\d+(, commit [0-9a-f]{40}(, with local changes)?)?\n", answer.stdout)


def test_an_interrupted_command_says_so_and_releases_the_root(tmp_path: Path) -> None:
    """Regression: a second interrupt, while the first was being heeded, killed it with another status."""
    command = [*NDR, "run", "--date", "1998-04-22", "--set", f"root={tmp_path}"]
    # A shell that has the tests in the background has them, and what they start, ignore the signal.
    heeding = ["env", "--default-signal=INT", *command]
    process = subprocess.Popen(heeding, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "logs").exists():
        time.sleep(0.05)
    time.sleep(0.5)

    def interrupted() -> bool:
        process.send_signal(signal.SIGINT)  # again and again: some imports swallow the first one
        return process.poll() is not None

    wait_for(interrupted, "the end of the command")
    out, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted" in out and "Traceback" not in out + errors
    with lock.exclusive(tmp_path):
        pass


def test_a_second_run_on_a_root_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path):
        answer = ndr("run", "--date", "1998-04-22", "--set", f"root={tmp_path}")
        assert answer.returncode == 1
        assert "in use by another run" in answer.stderr
    with lock.exclusive(tmp_path):
        pass


def test_recommending_before_any_push_gives_advice(tmp_path: Path) -> None:
    answer = ndr("recommend", "--user", "1", "--set", f"root={tmp_path}")
    assert answer.returncode == 1
    assert "Nothing was pushed" in answer.stderr and "Traceback" not in answer.stderr
