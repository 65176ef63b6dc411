"""What Kubeflow is asked, by the command line, against a server that takes only what its API declares."""

import json
import ssl
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from api_server import Api
from certificates import self_signed
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.kubeflow import backfill as made_up
from pipeline.kubeflow import client
from schemas.errors import PassingError, UserError

PACKAGE = """
pipelineInfo: {name: shop}
root: {dag: {tasks: {}}}
schemaVersion: 2.1.0
---
platforms: {kubernetes: {}}
"""
DAILY = ("--cron", "0 0 4 * * *")


@pytest.fixture
def api() -> Iterator[Api]:
    started = Api(token="s3cret")
    yield started
    started.silent.set()
    started.shutdown()
    started.server_close()


@pytest.fixture
def package(tmp_path: Path) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(PACKAGE)
    return str(path)


def ndr(api: Api, *command: str, token: str = "s3cret", status: int = 0) -> str:
    """What a command says."""
    environment = {"NDR_KUBEFLOW_TOKEN": token, "NDR_KUBEFLOW_HOST": api.host}
    answer = CliRunner(env=environment).invoke(app, ["kubeflow", *command])
    assert answer.exit_code == status, answer.output
    return answer.output


def test_a_day_is_submitted_to_the_experiment_of_its_pipeline(api: Api, package: str) -> None:
    said = ndr(api, "submit", package, "--date", "2026-11-24")
    ((run_id, run),) = api.kept["runs"].items()
    assert run_id in said
    assert run["runtime_config"] == {"parameters": {"date": "2026-11-24", "days_back": 0}}
    assert run["pipeline_spec"].keys() == {"pipeline_spec", "platform_spec"}
    ((experiment_id, experiment),) = api.kept["experiments"].items()
    assert (experiment["display_name"], run["experiment_id"]) == ("shop", experiment_id)
    ndr(api, "submit", package, "--date", "2026-11-25", "--set", "trainer.epochs=2")
    assert len(api.kept["experiments"]) == 1
    assert list(api.kept["runs"].values())[1]["runtime_config"]["parameters"]["settings"] == ["trainer.epochs=2"]


def test_a_schedule_passes_the_day_and_runs_one_at_a_time(api: Api, package: str) -> None:
    ndr(api, "schedule", package, *DAILY, "--days-back", "1")
    (schedule,) = api.named("recurringruns", "shop")
    assert schedule["runtime_config"]["parameters"] == {"date": "[[ScheduledTime.2006-01-02]]", "days_back": 1}
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * *"}}
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == ("1", True, "ENABLE")


def test_a_schedule_is_one_a_pipeline_however_often_it_is_made(api: Api, package: str) -> None:
    assert "is scheduled" in ndr(api, "schedule", package, *DAILY)
    (first,) = api.named("recurringruns", "shop")
    assert "was so before" in ndr(api, "schedule", package, *DAILY)
    assert api.named("recurringruns", "shop") == [first]
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *", "--catch-up")
    (second,) = api.named("recurringruns", "shop")
    assert (second["trigger"]["cron_schedule"]["cron"], second["no_catchup"]) == ("0 0 5 * * *", False)
    # A pipeline that was compiled anew is scheduled anew.
    Path(package).write_text(PACKAGE.replace("tasks: {}", "tasks: {another: {}}"))
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *", "--catch-up")
    (third,) = api.named("recurringruns", "shop")
    assert "another" in third["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]


def test_schedules_are_listed_paused_resumed_and_deleted_by_name(api: Api, package: str, tmp_path: Path) -> None:
    for name in ("shop", "radio", "film"):  # more than fit on a page
        other = tmp_path / f"{name}.yaml"
        other.write_text(PACKAGE.replace("shop", name))
        ndr(api, "schedule", str(other), *DAILY)
    ndr(api, "pause", "radio")
    listed = ndr(api, "list")
    assert [("paused" in line) for line in listed.splitlines() if "0 0 4" in line] == [False, True, False]
    assert all(name in listed for name in ("shop", "radio", "film"))
    ndr(api, "resume", "radio")
    assert "paused" not in ndr(api, "list")
    ndr(api, "delete", "radio")
    assert [each["display_name"] for each in api.kept["recurringruns"].values()] == ["shop", "film"]
    assert "has no schedule radio" in ndr(api, "pause", "radio", status=1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up, "POLL", 0.01)
    monkeypatch.setattr(made_up, "PATIENCE", 3)


def asked(api: Api) -> list[str]:
    """The days in the order in which they were submitted, with a full stop each time a run was asked for its state."""
    days = [run["display_name"].removeprefix("shop ") for run in api.kept["runs"].values()]
    words = {"POST /runs": lambda: days.pop(0), **{f"GET /runs/{run}": lambda: "." for run in api.kept["runs"]}}
    return [words[request]() for request in api.requests if request in words]


@pytest.mark.usefixtures("impatient")
def test_a_backfill_starts_a_day_once_the_one_before_is_done(api: Api, package: str) -> None:
    api.states["shop 2026-11-23"] = ["PENDING", "RUNNING", "SUCCEEDED"]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", "--set", "trainer.epochs=2")
    assert asked(api) == ["2026-11-22", ".", "2026-11-23", ".", ".", ".", "2026-11-24", "."]
    assert [f"2026-11-{day} is done" in said for day in (22, 23, 24)] == [True] * 3
    for run in api.kept["runs"].values():
        assert run["runtime_config"]["parameters"]["settings"] == ["trainer.epochs=2"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_day_that_fails_stops_a_backfill_and_it_says_how_to_go_on(api: Api, package: str, state: str) -> None:
    api.states["shop 2026-11-23"] = ["RUNNING", state]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", status=1)
    assert asked(api) == ["2026-11-22", ".", "2026-11-23", ".", "."]
    first, second = api.kept["runs"]
    assert f"2026-11-22 is done: run {first}" in said and "Traceback" not in said
    assert f"2026-11-23: run {second} ended as {state}" in said and "go on with --from 2026-11-23" in said


@pytest.mark.usefixtures("impatient")
def test_a_backfill_waits_for_the_runs_of_the_pipeline_that_are_at_work(api: Api, package: str, tmp_path: Path) -> None:
    other = tmp_path / "radio.yaml"
    other.write_text(PACKAGE.replace("shop", "radio"))
    api.states.update({"radio 2026-11-20": ["RUNNING"], "shop 2026-11-20": ["RUNNING", "RUNNING", "SUCCEEDED"]})
    for day, each in (("20", str(other)), ("19", package), ("20", package)):  # the run at work is not on the first page
        ndr(api, "submit", each, "--date", f"2026-11-{day}")
    api.requests.clear()
    ndr(api, "backfill", package, "--from", "2026-11-21", "--to", "2026-11-21")
    runs = {run["display_name"]: name for name, run in api.kept["runs"].items()}
    # Its state is once listed and twice asked for.
    assert [r for r in api.requests if "runs" in r and r != "GET /runs"] == [
        f"GET /runs/{runs['shop 2026-11-20']}", f"GET /runs/{runs['shop 2026-11-20']}",
        "POST /runs", f"GET /runs/{runs['shop 2026-11-21']}",
    ]  # fmt: skip


@pytest.mark.usefixtures("impatient")
def test_a_backfill_outlasts_a_server_that_restarts_but_not_one_that_is_gone(api: Api, package: str) -> None:
    days = [date(2026, 11, 22)]
    api.states["shop 2026-11-22"] = ["RUNNING", "SUCCEEDED"]
    failures = [2]

    def say(words: str) -> None:
        if "at work" in words:  # the day is submitted
            api.failing = failures[0]

    to, read = client.Client(api.host, "s3cret"), client.read_package(Path(package))
    assert [day for day, _ in made_up.backfill(to, read, days, (), say)] == days
    failures[0] = 3
    with pytest.raises(PassingError, match=r"2026-11-22: .*answered 503"):
        list(made_up.backfill(to, read, days, (), say))


def test_a_backfill_that_is_interrupted_leaves_the_run_at_work(
    api: Api, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(made_up.time, "sleep", interrupt)
    api.states["shop 2026-11-22"] = ["RUNNING"]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", status=130)
    assert "The run that was started goes on" in said and len(api.kept["runs"]) == 1


def test_a_backfill_as_json_holds_the_days_that_were_done(api: Api, package: str) -> None:
    api.states["shop 2026-11-23"] = ["FAILED"]
    command = ["kubeflow", "backfill", package, "--from", "2026-11-22", "--to", "2026-11-23", "--json"]
    answer = CliRunner(env={"NDR_KUBEFLOW_TOKEN": "s3cret", "NDR_KUBEFLOW_HOST": api.host}).invoke(app, command)
    assert (answer.exit_code, json.loads(answer.stdout)) == (
        1,
        [{"date": "2026-11-22", "run": next(iter(api.kept["runs"]))}],
    )
    assert "expected --to at or after --from" in ndr(
        api, "backfill", package, "--from", "2026-11-24", "--to", "2026-11-23", status=2
    )


def test_what_the_server_refuses_is_told_in_words(api: Api, package: str) -> None:
    said = ndr(api, "list", token="wrong", status=1)
    assert (
        "answered 401: the token is missing or has expired" in said and "Traceback" not in said and "wrong" not in said
    )
    api.answer = (400, "no such day")
    assert "answered 400: no such day" in ndr(api, "submit", package, "--date", "2026-11-24", status=1)
    api.answer = (503, "busy")
    with pytest.raises(PassingError, match="answered 503"):
        client.Client(api.host).schedules()


def test_a_run_is_asked_for_once_whatever_comes_of_it(api: Api, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 1)
    ndr(api, "submit", package, "--date", "2026-11-24")
    api.requests.clear()
    api.silent.clear()
    said = ndr(api, "list", status=1)
    assert "timed out" in said and "Traceback" not in said
    assert len(api.requests) == 1


def test_a_server_that_is_not_there_is_named(package: str) -> None:
    with pytest.raises(PassingError, match=r"127\.0\.0\.1:1 cannot be reached: .*refused"):
        client.Client("http://127.0.0.1:1").schedules()


def test_a_certificate_is_checked_against_those_that_are_trusted(api: Api, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = Api()
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    host = secure.host.replace("http:", "https:")
    with pytest.raises(UserError, match=r"cannot be trusted: .*self-signed"):
        client.Client(host).schedules()
    assert client.Client(host, certificates=certificate).schedules() == []
    secure.shutdown()
    secure.server_close()


@pytest.mark.parametrize("cron", ["0 4 * * *", "daily"])
def test_a_cron_expression_without_seconds_is_refused(api: Api, package: str, cron: str) -> None:
    assert "six fields, seconds first" in ndr(api, "schedule", package, "--cron", cron, status=1)
    assert api.requests == []


@pytest.mark.parametrize("text", ["", "a: b\n---\nc: d\n", "- x\n---\n- y\n", "a: [", "one: document\n"])
def test_a_file_that_is_no_compiled_pipeline_is_named(api: Api, tmp_path: Path, text: str) -> None:
    (tmp_path / "other.yaml").write_text(text)
    said = ndr(api, "submit", str(tmp_path / "other.yaml"), "--date", "2026-11-24", status=1)
    assert "expected what `ndr kubeflow compile` writes" in said and "Traceback" not in said
