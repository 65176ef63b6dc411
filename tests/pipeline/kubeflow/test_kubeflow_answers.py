"""What we compile and send, held against what Kubeflow made of the like; and the judges that run here against it, too."""

import json
import re
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from pipeline import config as configuration
from pipeline import digests, run_node
from pipeline.kubeflow import client, compiler, connection
from pipeline.kubeflow.package import read_package
from pipeline.kubeflow.settings import KubeflowSettings, Machine
from pipeline.monitoring import missed
from tests import kubeflow_judge
from tests.pipeline.kubeflow.api_server import Api

TAGS = sorted(path.stem for path in kubeflow_judge.ANSWERS.glob("*.json"))
SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
NAMED = {"tasks", "components", "executors", "parameters", "labels", "annotations"}  # what is under these, we name
RECORDED = list(yaml.safe_load_all(kubeflow_judge.compiled()))
SETTINGS = RECORDED[0]["root"]["inputDefinitions"]["parameters"]["settings"]["defaultValue"]
TASKS = RECORDED[0]["root"]["dag"]["tasks"]


@pytest.fixture(scope="module")
def package() -> compiler.Compiled:
    """What today's code compiles of the settings of the recorded pipeline."""
    return compiler.compile_pipeline(configuration.load(SHOP, SETTINGS), SHOP, SETTINGS)


def uses(part: Any, path: str = "") -> Iterator[str]:
    """What a compiled pipeline uses of Kubeflow: keys, placeholders and expressions."""
    if isinstance(part, dict):
        is_ours = path.rpartition("/")[2] in NAMED
        for key, value in part.items():
            yield from uses(value, f"{path}/{'*' if is_ours else key}")
    elif isinstance(part, list):
        for each in part:
            yield from uses(each, path)
    else:
        placeholders = re.findall(r"\{\{.*?\}\}", part) if isinstance(part, str) else []
        yield " ".join([path, *placeholders, *([part] if path.endswith("/condition") else [])])


def parsed(words: list[str]) -> list[object]:
    """Lists are compared as lists: Python and Go space JSON differently."""
    return [json.loads(word) if word.startswith("[") else word for word in words]


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_kubeflow_was_asked_about_all_that_can_be_configured() -> None:
    (given,) = [yaml.safe_load(each.partition("=")[2]) for each in SETTINGS if each.startswith("kubeflow=")]
    assert given.keys() == KubeflowSettings.model_fields.keys()
    assert set().union(given["machine"], *given["steps"].values()) == Machine.model_fields.keys()


def test_kubeflow_was_asked_about_all_that_is_compiled(package: compiler.Compiled) -> None:
    for mine, recorded in zip(yaml.safe_load_all(package.text), RECORDED, strict=True):
        assert set(uses(mine)) == set(uses(recorded)), f"see {kubeflow_judge.ANSWERS / 'README.md'}"


def test_a_refresh_uses_nothing_of_kubeflow_that_a_day_does_not(tmp_path: Path) -> None:
    compiled = compiler.compile_pipeline(configuration.load(SHOP, SETTINGS), SHOP, SETTINGS, is_refresh=True)
    for mine, recorded in zip(yaml.safe_load_all(compiled.text), RECORDED, strict=True):
        assert set(uses(mine)) <= set(uses(recorded))
    path = tmp_path / "refresh.yaml"
    path.write_text(compiled.text)
    read = read_package(path)
    assert (read.name, read.is_refresh) == ("shop-refresh", True)
    # Its commands, as the driver and the launcher make them: Begin works the day out, and hands it to the rest.
    begin = kubeflow_judge.command(compiled.text, "begin", {}, "1234")
    assert (after(begin, "--node"), after(begin, "--date"), after(begin, "--run-id")) == ("Begin", "", "1234")
    assert "--refresh" in begin and "--days-back" not in begin
    (other,) = yaml.safe_load(compiled.text.split("\n---\n")[0])["root"]["dag"]["tasks"].keys() - {"begin"}
    words = kubeflow_judge.command(compiled.text, other, {}, "1234", {"begin": {"day": "2026-11-25"}})
    nodes = [word for before, word in pairwise(words) if before == "--node"]
    assert (nodes[0], nodes[-2:], after(words, "--date")) == ("Catalogue", ["Pusher", "End"], "2026-11-25")
    assert "--refresh" in words and "Trainer" not in nodes
    # Scheduled beside the days, and without the parameters of theirs.
    api = Api()
    try:
        client.Client(connection.Connection(connection.Access(api.host))).schedule(
            read, client.Schedule("0 30 * * * *")
        )
        (scheduled,) = api.kept["recurringruns"].values()
    finally:
        api.shutdown()
        api.server_close()
    assert scheduled["display_name"] == "shop-refresh" and scheduled["max_concurrency"] == "1"
    assert scheduled["runtime_config"] == {"parameters": {}}


@pytest.mark.parametrize("tag", TAGS)
def test_a_steps_command_is_the_one_that_kubeflows_driver_and_launcher_make(tag: str) -> None:
    steps = kubeflow_judge.answer(tag)["steps"]
    assert steps.keys() == TASKS.keys()
    begun = {"begin": {"day": "2026-11-24"}}
    for task, step in steps.items():
        words = step["command"]
        mine = kubeflow_judge.command(kubeflow_judge.compiled(), task, {}, after(words, "--run-id"), begun)
        assert parsed(mine) == parsed(words), task


@pytest.mark.parametrize("tag", TAGS)
def test_a_schedule_that_fires_on_the_25th_runs_the_24th(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubeflow fires at 2026-11-25T04:00Z what our client asked for; its launcher's words for Begin choose the day."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(kubeflow_judge.compiled())
    api = Api()
    try:
        to = connection.Connection(connection.Access(api.host))
        client.Client(to).schedule(read_package(path), client.Schedule("0 0 4 * * *"))
        (mine,) = api.kept["recurringruns"].values()
    finally:
        api.shutdown()
        api.server_close()
    answer = kubeflow_judge.answer(tag)
    asked = answer["request"]
    assert {key: type(value) for key, value in mine.items() if key in asked} == {k: type(v) for k, v in asked.items()}
    assert [mine[key] for key in ("runtime_config", "trigger", "max_concurrency", "no_catchup")] == [
        asked[key] for key in ("runtime_config", "trigger", "max_concurrency", "no_catchup")
    ]
    words = answer["steps"]["begin"]["command"]
    assert (after(words, "--date"), after(words, "--days-back")) == ("", "1")
    settings = [f"root={tmp_path}"]
    here = {
        "--config": str(SHOP),
        "--settings": json.dumps(settings),
        "--day-file": str(tmp_path / "day"),
        "--definition": digests.definition(SHOP, configuration.load(SHOP, settings)),
    }
    pasted = [here.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    monkeypatch.setattr(missed, "today", lambda: date(2026, 11, 25))
    begin = typer.Typer()
    begin.command()(run_node.step)
    assert pasted[:3] == ["python", "-m", "pipeline.run_node"]
    ended = CliRunner().invoke(begin, pasted[3:])
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "day").read_text() == "2026-11-24"
    others = {task: after(step["command"], "--date") for task, step in answer["steps"].items() if task != "begin"}
    assert set(others.values()) == {"2026-11-24"}, "what Begin hands on reaches every other step"


@pytest.mark.parametrize("tag", TAGS)
def test_without_a_day_kubeflow_starts_nothing_behind_begin(tag: str, package: compiler.Compiled) -> None:
    answer = kubeflow_judge.answer(tag)
    (first,) = [task for task, found in answer["conditions_without_a_day"].items() if found == "false"]
    behind = {task: set(re.findall(r"([\w-]+)\.Succeeded", step["depends"])) for task, step in answer["steps"].items()}
    left_out = {first}
    while more := {task for task, before in behind.items() if before & left_out} - left_out:
        left_out |= more
    assert left_out == TASKS.keys() - {"begin"}
    # A driver of the whole, and for each task a driver and a pod; without a day: the first, Begin's two, and the next one's driver.
    assert sum(answer["pods"].values()) == 1 + 2 * len(TASKS)
    mine = yaml.safe_load(package.text.split("\n---\n")[0])["root"]["dag"]["tasks"]
    # What was recorded had no users' table, whose task is conditional as the catalogue's is.
    assert (package.pods, package.pods_when_done) == (1 + 2 * len(mine), 1 + 2 + 2)
    assert {task for task, spec in mine.items() if "triggerPolicy" in spec} == {first, "users"}
    assert answer["workflow_bytes"] < 100_000, "etcd takes 1.5 MB, of a workflow with its status"
