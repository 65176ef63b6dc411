"""What Kubeflow is asked, by the command line, against a server that takes only what its API declares."""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import config as configuration
from pipeline import digests
from pipeline.cli import app
from pipeline.kubeflow import backfill as made_up
from pipeline.kubeflow import cli, client, connection
from pipeline.kubeflow.package import read_package
from schemas.errors import PassingError, UserError
from tests.certificates import self_signed
from tests.pipeline.kubeflow.api_server import Api, Handler
from tests.work import Work

PACKAGE = """
pipelineInfo: {name: shop}
root:
  dag: {tasks: {}}
  inputDefinitions: {parameters: {date: {}, days_back: {}, make_up_days: {}, settings: {defaultValue: [root=/nowhere]}}}
deploymentSpec: {executors: {exec-begin: {container: {args: [--node, Begin, --config, shop.yaml, --definition, "0123"]}}}}
schemaVersion: 2.1.0
---
platforms: {kubernetes: {}}
"""
SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
DAILY = ("--cron", "0 0 4 * * *")


@pytest.fixture
def api() -> Iterator[Api]:
    started = Api(token="s3cret")
    yield started
    started.silent.set()
    started.shutdown()
    started.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL", 0.01)
    monkeypatch.setattr(client, "PATIENCE", 3)


@pytest.fixture
def package(tmp_path: Path) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(PACKAGE)
    return str(path)


def ndr(api: Api, *command: str, status: int = 0, **environment: str | None) -> str:
    """What a command says."""
    given = {"NDR_KUBEFLOW_TOKEN": "s3cret", "NDR_KUBEFLOW_HOST": api.host, "NDR_KUBEFLOW_PLAIN_HTTP": "1"}
    own = {f"NDR_KUBEFLOW_{name.upper()}": value for name, value in environment.items()}
    answer = CliRunner(env={**given, **own}).invoke(app, ["kubeflow", *command])
    assert answer.exit_code == status and "Traceback" not in answer.output, answer.output
    return answer.output


def opened(api: Api) -> client.Client:
    return client.Client(connection.Connection(connection.Access(api.host, "s3cret", plain_http=True)))


def test_a_package_is_one_version_of_one_pipeline(api: Api, package: str) -> None:
    assert "uploaded version" in ndr(api, "upload", package)
    assert "found version" in ndr(api, "upload", package)
    ((pipeline, made),) = api.kept["pipelines"].items()
    (version,) = api.kept["versions"].values()
    assert (made["display_name"], version["pipeline_id"], version["content"]) == ("shop", pipeline, PACKAGE)
    Path(package).write_text(PACKAGE.replace("tasks: {}", "tasks: {another: {}}"))
    ndr(api, "upload", package)
    assert len(api.kept["pipelines"]) == 1 and len(api.kept["versions"]) == 2


def test_a_day_is_submitted_to_the_experiment_and_as_a_version_of_its_pipeline(api: Api, package: str) -> None:
    said = ndr(api, "submit", package, "--date", "2026-11-24")
    ((run_id, run),) = api.kept["runs"].items()
    assert run_id in said
    assert run["runtime_config"] == {"parameters": {"date": "2026-11-24"}}
    (version,) = api.kept["versions"].values()
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]
    }  # fmt: skip
    ((experiment_id, experiment),) = api.kept["experiments"].items()
    assert (experiment["display_name"], run["experiment_id"]) == ("shop", experiment_id)
    ndr(api, "submit", package, "--date", "2026-11-25", "--set", "trainer.epochs=2")
    assert len(api.kept["experiments"]) == len(api.kept["versions"]) == 1
    assert list(api.kept["runs"].values())[1]["runtime_config"]["parameters"]["settings"] == ["trainer.epochs=2"]
    ndr(api, "retry", run_id)
    assert api.requests[-1] == f"POST /runs/{run_id}:retry"


def test_a_schedule_names_no_day_and_runs_one_at_a_time(api: Api, package: str) -> None:
    ndr(api, "schedule", package, *DAILY, "--days-back", "2", "--make-up-days", "3")
    (schedule,) = api.named("recurringruns", "shop")
    # No released Kubeflow fills a day into a scheduled run of this kind: its first step works it out.
    assert schedule["runtime_config"]["parameters"] == {"days_back": 2, "make_up_days": 3}
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * *"}}
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == ("1", True, "ENABLE")
    (version,) = api.kept["versions"]
    assert schedule["pipeline_version_reference"]["pipeline_version_id"] == version


def test_a_schedule_is_one_a_pipeline_however_often_it_is_made(api: Api, package: str) -> None:
    assert "is scheduled" in ndr(api, "schedule", package, *DAILY)
    (first,) = api.named("recurringruns", "shop")
    assert "already scheduled this way" in ndr(api, "schedule", package, *DAILY)
    assert api.named("recurringruns", "shop") == [first]
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *")
    (second,) = api.named("recurringruns", "shop")
    assert (second["trigger"]["cron_schedule"]["cron"], second["mode"]) == ("0 0 5 * * *", "ENABLE")
    # A pipeline that was compiled again is scheduled again, as its new version; a paused one is resumed.
    Path(package).write_text(PACKAGE.replace("tasks: {}", "tasks: {another: {}}"))
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *")
    (third,) = api.named("recurringruns", "shop")
    assert third["pipeline_version_reference"] != second["pipeline_version_reference"]
    ndr(api, "pause", "shop")
    assert "is scheduled" in ndr(api, "schedule", package, "--cron", "0 0 5 * * *")
    assert api.named("recurringruns", "shop") == [{**third, "mode": "ENABLE"}]


@pytest.mark.parametrize("tag", ["2.5.0", "2.17.0"])
@pytest.mark.parametrize("command", ["delete", "schedule"])
def test_a_run_at_work_is_waited_for_before_its_schedule_goes(
    api: Api, package: str, monkeypatch: pytest.MonkeyPatch, command: str, tag: str
) -> None:
    api.health["tag_name"] = tag
    ndr(api, "schedule", package, *DAILY)
    (schedule,) = api.named("recurringruns", "shop")
    run, other = api.fire(schedule, "RUNNING"), api.fire({**schedule, "recurring_run_id": "another"}, "RUNNING")
    states = iter(["RUNNING", "RUNNING", "SUCCEEDED"])
    modes: list[str] = []  # of the schedule, each time that its run is waited for

    def sleep(_: float) -> None:
        modes.append(schedule["mode"])
        api.states[f"shop {run}"] = [next(states, "SUCCEEDED")]

    monkeypatch.setattr(time, "sleep", sleep)
    arguments = ("shop",) if command == "delete" else (package, "--cron", "0 0 5 * * *")
    said = ndr(api, command, *arguments)
    assert f"waits for unfinished run {run}" in said and other not in said
    assert api.kept["runs"].keys() == {run, other}, "the schedule took a run with it"
    assert len(modes) > 2 and set(modes) == {"DISABLE"}
    assert [each["trigger"]["cron_schedule"]["cron"] for each in api.kept["recurringruns"].values()] == (
        [] if command == "delete" else ["0 0 5 * * *"]
    )


def test_a_run_that_is_not_listed_yet_outlives_its_schedule_where_kubeflow_can_orphan_it(
    api: Api, package: str
) -> None:
    ndr(api, "schedule", package, *DAILY)
    (schedule,) = api.named("recurringruns", "shop")
    run = api.fire({**schedule, "experiment_id": "not listed"}, "RUNNING")
    ndr(api, "delete", "shop")
    assert run in api.kept["runs"] and not api.kept["recurringruns"]


def test_a_schedule_that_is_refused_leaves_the_one_that_was_there(
    api: Api, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ndr(api, "schedule", package, *DAILY)
    before = [dict(each) for each in api.named("recurringruns", "shop")]

    def refuse(*_: object) -> None:
        raise ValueError("Invalid cron: 0 0 99 * * *")

    with monkeypatch.context() as patched:
        patched.setattr(Handler, "_keep", refuse)
        said = ndr(api, "schedule", package, "--cron", "0 0 99 * * *", status=1)
    assert "answered 400: Invalid cron" in said
    assert api.named("recurringruns", "shop") == before


def test_a_replacement_that_was_interrupted_is_completed_by_the_same_command(
    api: Api, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ndr(api, "schedule", package, *DAILY)
    (schedule,) = api.named("recurringruns", "shop")
    run = api.fire(schedule, "RUNNING")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", interrupt)
        said = ndr(api, "schedule", package, "--cron", "0 0 5 * * *", status=130)
    assert "paused until the same command is completed" in said
    assert [each["mode"] for each in api.named("recurringruns", "shop")] == ["DISABLE", "DISABLE"]
    api.states[f"shop {run}"] = ["SUCCEEDED"]
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *")
    (left,) = api.named("recurringruns", "shop")
    assert (left["trigger"]["cron_schedule"]["cron"], left["mode"]) == ("0 0 5 * * *", "ENABLE")


def test_a_schedule_of_that_name_that_is_not_ours_is_left_alone(api: Api, package: str) -> None:
    ndr(api, "schedule", package, *DAILY)
    (schedule,) = api.named("recurringruns", "shop")
    schedule["description"] = "by hand"
    said = ndr(api, "schedule", package, *DAILY, status=1)
    assert "has a schedule shop that ndr did not make" in said and "then schedule again" in said
    assert api.named("recurringruns", "shop") == [schedule] and schedule["mode"] == "ENABLE"


def test_schedules_are_listed_paused_resumed_and_deleted_by_name(api: Api, package: str, tmp_path: Path) -> None:
    for name in ("shop", "radio", "film"):  # more than fit on a page
        other = tmp_path / f"{name}.yaml"
        other.write_text(PACKAGE.replace("name: shop", f"name: {name}"))
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


def test_a_name_of_the_servers_reaches_no_terminal_as_an_escape_sequence(api: Api, package: str) -> None:
    ndr(api, "schedule", package, *DAILY)
    api.named("recurringruns", "shop")[0]["display_name"] = "shop\x1b]0;owned\x07"
    listed = ndr(api, "list")
    assert "shop\N{SYMBOL FOR ESCAPE}]0;owned\N{SYMBOL FOR BELL}" in listed and "\x1b" not in listed


def asked(api: Api) -> list[str]:
    """The days in the order in which they were submitted, with a full stop each time a run was asked for its state."""
    days = [run["display_name"].removeprefix("shop ") for run in api.kept["runs"].values()]
    words: dict[str, Callable[[], str]] = {f"GET /runs/{run}": lambda: "." for run in api.kept["runs"]}
    words["POST /runs"] = lambda: days.pop(0)
    return [words[request]() for request in api.requests if request in words]


def test_a_backfill_starts_a_day_once_the_one_before_is_done(api: Api, package: str) -> None:
    api.states["shop 2026-11-23"] = ["PENDING", "RUNNING", "SUCCEEDED"]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", "--set", "trainer.epochs=2")
    assert asked(api) == ["2026-11-22", ".", "2026-11-23", ".", ".", ".", "2026-11-24", "."]
    assert [f"2026-11-{day} is done" in said for day in (22, 23, 24)] == [True] * 3
    for run in api.kept["runs"].values():
        assert run["runtime_config"]["parameters"]["settings"] == ["trainer.epochs=2"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_failed_day_stops_a_backfill_and_it_says_how_to_resume(api: Api, package: str, state: str) -> None:
    api.states["shop 2026-11-23"] = ["RUNNING", state]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", status=1)
    assert asked(api) == ["2026-11-22", ".", "2026-11-23", ".", "."]
    first, second = api.kept["runs"]
    assert f"2026-11-22 is done: run {first}" in said and "Traceback" not in said
    assert f"2026-11-23: run {second} ended as {state}" in said and "repeat it from 2026-11-23 on" in said


def test_a_backfill_waits_for_the_runs_of_the_pipeline_that_are_at_work(api: Api, package: str, tmp_path: Path) -> None:
    other = tmp_path / "radio.yaml"
    other.write_text(PACKAGE.replace("name: shop", "name: radio"))
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


def test_a_backfill_outlasts_a_server_that_restarts_but_not_one_that_is_gone(api: Api, package: str) -> None:
    days = [date(2026, 11, 22)]
    api.states["shop 2026-11-22"] = ["RUNNING", "SUCCEEDED"]
    failures = [2]

    def say(words: str) -> None:
        if "is running" in words:  # the day is submitted
            api.failing = failures[0]

    to, read = opened(api), read_package(Path(package))
    assert [day for day, _ in made_up.backfill(to, read, iter(days), (), say)] == days
    failures[0] = 3
    with pytest.raises(PassingError, match=r"2026-11-22: .*answered 503"):
        list(made_up.backfill(to, read, iter(days), (), say))
    # A status of its own, by which the CronJob tells it from a day that failed.
    api.failing = 100
    assert "answered 503" in ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-22", status=75)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Work, str]:
    """A root with ML Metadata, and a package whose configuration names it."""
    settings = [f"root={tmp_path}", "kubeflow.image=ndr"]
    definition = digests.definition(SHOP, configuration.load(SHOP, settings))
    package = tmp_path / "package.yaml"
    package.write_text(
        PACKAGE.replace("shop.yaml", str(SHOP))
        .replace("0123", definition)
        .replace("[root=/nowhere]", json.dumps(settings))
    )
    return Work(tmp_path), str(package)


def complete(work: Work, day: str) -> None:
    """A run of a day that is done, whoever did it."""
    work.step(work.run(day), "Pusher", "pushed_model", "PushedModel")


def test_days_that_were_missed_are_those_that_ml_metadata_lacks(
    api: Api, shop: tuple[Work, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, package = shop
    monkeypatch.setattr(cli, "today", lambda: date(2026, 11, 26))
    complete(work, "2026-11-21")  # the first; 22 and 25 are missing, 24 is at work
    complete(work, "2026-11-23")
    api.states["shop 2026-11-24"] = ["RUNNING", "RUNNING", "SUCCEEDED"]
    ndr(api, "submit", package, "--date", "2026-11-24")
    api.requests.clear()
    seen: set[str] = set()

    def done(name: str) -> None:
        if name not in seen:
            seen.add(name)
            complete(work, name.removeprefix("shop "))

    api.succeeded = done
    said = ndr(api, "backfill", package, "--missed", "--days-back", "1")
    assert [run["display_name"] for run in api.kept["runs"].values()] == [
        "shop 2026-11-24", "shop 2026-11-22", "shop 2026-11-25"
    ]  # fmt: skip
    assert "shop: no day up to 2026-11-25 is missing" in said
    # Safe to repeat: nothing is started where nothing is missing.
    assert "no day up to 2026-11-25 is missing" in ndr(api, "backfill", package, "--missed")
    assert json.loads(ndr(api, "backfill", package, "--missed", "--json")) == []
    assert len(api.kept["runs"]) == 3


def test_a_day_that_stays_missing_though_its_run_succeeded_ends_a_backfill(
    api: Api, shop: tuple[Work, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "today", lambda: date(2026, 11, 25))
    said = ndr(api, "backfill", shop[1], "--missed", status=1)
    assert "2026-11-24: run" in said and "but ML Metadata has no complete run of that day" in said
    assert len(api.kept["runs"]) == 1


def test_days_that_were_missed_are_asked_of_the_configuration_that_was_compiled(
    api: Api, shop: tuple[Work, str]
) -> None:
    path = Path(shop[1])
    path.write_text(re.sub(r"--definition, .\w+", '--definition, "0123', path.read_text()))
    said = ndr(api, "backfill", shop[1], "--missed", status=1)
    assert "was compiled from other code or another configuration (0123)" in said and not api.kept["runs"]
    for wrong in (("--missed", "--from", "2026-11-24", "--to", "2026-11-25"), (), ("--from", "2026-11-24")):
        assert "expected --from and --to, or --missed" in ndr(api, "backfill", shop[1], *wrong, status=2)


def test_a_backfill_that_is_interrupted_leaves_the_run_at_work(
    api: Api, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    api.states["shop 2026-11-22"] = ["RUNNING"]
    said = ndr(api, "backfill", package, "--from", "2026-11-22", "--to", "2026-11-24", status=130)
    assert "A run that was started continues" in said and len(api.kept["runs"]) == 1


def test_a_backfill_as_json_holds_the_days_that_were_done(api: Api, package: str) -> None:
    api.states["shop 2026-11-23"] = ["FAILED"]
    command = ["kubeflow", "backfill", package, "--from", "2026-11-22", "--to", "2026-11-23", "--json"]
    env = {"NDR_KUBEFLOW_TOKEN": "s3cret", "NDR_KUBEFLOW_HOST": api.host, "NDR_KUBEFLOW_PLAIN_HTTP": "1"}
    answer = CliRunner(env=env).invoke(app, command)
    assert (answer.exit_code, json.loads(answer.stdout)) == (
        1,
        [{"date": "2026-11-22", "run": next(iter(api.kept["runs"]))}],
    )
    assert "expected --to at or after --from" in ndr(
        api, "backfill", package, "--from", "2026-11-24", "--to", "2026-11-23", status=2
    )


def test_a_refused_token_is_explained(api: Api, package: str) -> None:
    said = ndr(api, "list", status=1, token="wrong")
    assert "answered 401: the token is missing, is refused or has expired" in said and "wrong" not in said
    api.answer = (400, "application/json", '{"error": "no such day", "code": 3, "details": []}')
    assert "answered 400: no such day." in ndr(api, "submit", package, "--date", "2026-11-24", status=1)


def test_a_token_is_read_from_its_file_at_every_request(api: Api, package: str, tmp_path: Path) -> None:
    """A projected token lives an hour; a backfill lives for days."""
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    api.states["shop 2026-11-22"] = ["RUNNING", "RUNNING", "SUCCEEDED"]

    def say(words: str) -> None:
        if "is running" in words:
            api.token = "another"
            file.write_text("another")

    to = client.Client(connection.Connection(connection.Access(api.host, token_file=file, plain_http=True)))
    days = [date(2026, 11, 22)]
    read = read_package(Path(package))
    assert [day for day, _ in made_up.backfill(to, read, iter(days), (), say)] == days
    assert "expected one of" in ndr(api, "list", status=1, token_file=str(file))
    file.write_text("")
    assert f"{file}: expected a token, received an empty file" in ndr(
        api, "list", status=1, token=None, token_file=str(file)
    )
    assert "No such file" in ndr(api, "list", status=1, token=None, token_file=f"{file}.gone")


def test_a_token_that_expires_in_the_middle_of_a_backfill_leaves_the_run_at_work(api: Api, package: str) -> None:
    def expire(words: str) -> None:
        if "is running" in words:
            api.token = "another"

    with pytest.raises(UserError) as refused:
        list(made_up.backfill(opened(api), read_package(Path(package)), iter([date(2026, 11, 22)]), (), expire))
    assert "2026-11-22: " in str(refused.value) and "has expired: set NDR_KUBEFLOW_TOKEN again" in str(refused.value)
    assert "repeat it from 2026-11-22 on; an unfinished run continues" in str(refused.value)


def test_a_session_is_shown_by_its_cookie(api: Api) -> None:
    api.token = ""
    ndr(api, "list", token=None, cookie="authservice_session=abc")
    assert api.headers["Cookie"] == "authservice_session=abc" and "Authorization" not in api.headers


def test_a_token_or_cookie_goes_over_plain_http_only_if_that_is_asked_for(api: Api) -> None:
    for given in ({}, {"token": None, "cookie": "a=b"}, {"token": None, "token_file": "/nowhere"}):
        said = ndr(api, "list", status=1, plain_http=None, **given)
        assert "over http:// anyone on the way can read the token" in said and "--plain-http" in said
    assert api.headers == {}
    api.token = ""
    ndr(api, "list", token=None, plain_http=None)


PAGE = "<!doctype html><title>Dex login</title>"


@pytest.mark.parametrize(
    ("answer", "location", "sentence"),
    [
        ((200, "text/html", PAGE), "", "answered with a page (text/html), not with what Kubeflow's API says: sign in"),
        ((200, "application/json", "[]"), "", "not with what Kubeflow's API says"),
        (None, "/dex/auth?x=1", "answered 302: it redirects to /dex/auth?x=1, a sign-in perhaps: sign in"),
        ((404, "text/html", PAGE), "", "answered 404: a page, not what Kubeflow's API says: sign in"),
        ((200, "application/json", '{"status": "ok"}'), "", "is not Kubeflow Pipelines: it answers"),
        ((200, "application/json", '{"apiServerReady": false}'), "", "cannot reach Kubeflow's API server"),
        ((500, "text/html", PAGE), "", "answered 500: a page"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("submit", "PACKAGE", "--date", "2026-11-25"),
        ("backfill", "PACKAGE", "--from", "2026-11-24", "--to", "2026-11-25"),
        ("schedule", "PACKAGE", *DAILY),
        ("list",),
        ("pause", "shop"),
    ],
)
def test_a_host_that_is_not_kubeflow_is_an_error_that_helps(
    api: Api, package: str, command: tuple[str, ...], answer: tuple[int, str, str] | None, location: str, sentence: str
) -> None:
    api.answer, api.location = answer, location
    passing = command[0] == "backfill" and sentence in ("cannot reach Kubeflow's API server", "answered 500: a page")
    status = 75 if passing else 1  # sysexits' EX_TEMPFAIL: the CronJob that makes up for missed days tries again
    said = ndr(api, *(package if word == "PACKAGE" else word for word in command), status=status)
    assert f"{api.host}" in said and sentence in said and "None" not in said
    if "sign in" in sentence:
        assert "NDR_KUBEFLOW_TOKEN" in said and "add the path, such as /pipeline" in said
    assert api.requests == []  # its health was asked for, and nothing else


def test_an_answer_without_an_id_is_an_error(api: Api, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Handler._keep
    monkeypatch.setattr(Handler, "_keep", lambda self, kind, sent: {} if kind == "runs" else keep(self, kind, sent))
    assert "answered without a run_id" in ndr(api, "submit", package, "--date", "2026-11-24", status=1)


@pytest.mark.parametrize(
    "host", ["kubeflow.example", "https://", "ftp://kubeflow", "https://kubeflow.example/#/runs", "https://k/?ns=x"]
)
def test_an_address_that_is_malformed_is_named(host: str) -> None:
    with pytest.raises(UserError, match=r"expected an address such as https://kubeflow\.example/pipeline"):
        connection.Connection(connection.Access(host))


@pytest.mark.parametrize(
    ("health", "version"),
    [
        ({"tag_name": "2.5.0", "commit_sha": "x", "multi_user": True}, "2.5.0"),
        ({"apiServerTagName": "2.17.1", "apiServerReady": True}, "2.17.1"),  # through the user interface
        ({"tag_name": "v2.16"}, "v2.16"),
        ({"tag_name": "unknown", "commit_sha": "unknown"}, ""),  # built by whoever runs it
    ],
)
def test_the_server_says_which_version_it_is(api: Api, health: dict[str, object], version: str) -> None:
    api.health = health
    assert connection.Connection(connection.Access(api.host, "s3cret", plain_http=True)).version == version
    assert ("does not say which version" in ndr(api, "list")) == (not version)


def test_a_version_that_is_too_old_is_refused(api: Api, package: str) -> None:
    api.health["tag_name"] = "2.4.1"
    for command in (("schedule", package, *DAILY), ("submit", package, "--date", "2026-11-24")):
        said = ndr(api, *command, status=1)
        assert "is Kubeflow Pipelines 2.4.1; expected 2.5.0 or later" in said and "Upgrade it" in said
    assert api.requests == []


def test_a_run_is_asked_for_once_whatever_comes_of_it(api: Api, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to, read = opened(api), read_package(Path(package))
    to.submit(read, date(2026, 11, 24))
    monkeypatch.setattr(connection, "TIMEOUT", 1)
    api.requests.clear()
    api.silent.clear()
    with pytest.raises(PassingError, match="timed out"):
        to.schedules()
    assert len(api.requests) == 1
    api.silent.set()
    before = len(api.kept["runs"])
    api.requests.clear()
    monkeypatch.setattr(to, "_reference", lambda _: api.__setattr__("failing", 1))
    with pytest.raises(
        PassingError, match=r"answered 503: restarts\. Whether it created a run is unknown: check before"
    ):
        to.submit(read, date(2026, 11, 24))
    assert api.requests.count("POST /runs") == 1 and len(api.kept["runs"]) == before


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(PassingError, match=r"127\.0\.0\.1:1 cannot be reached: .*refused"):
        connection.Connection(connection.Access("http://127.0.0.1:1")).version  # noqa: B018


def test_a_certificate_is_checked_against_those_that_are_trusted(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = Api()
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    host = secure.host.replace("http:", "https:")
    with pytest.raises(UserError, match=r"cannot be trusted: .*self-signed"):
        connection.Connection(connection.Access(host)).version  # noqa: B018
    assert connection.Connection(connection.Access(host, certificates=certificate)).version == "2.16.0"
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
    assert "expected what `ndr kubeflow compile` writes" in said


def test_a_pipeline_that_other_code_compiled_is_refused(api: Api, package: str) -> None:
    Path(package).write_text(PACKAGE.replace("make_up_days: {}, ", ""))
    said = ndr(api, "submit", package, "--date", "2026-11-24", status=1)
    assert "it was compiled by other code. Compile it again: ndr kubeflow compile" in said
    assert api.requests == []
