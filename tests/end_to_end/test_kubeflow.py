"""Days on Kubeflow: the compiled pipeline's own commands, each in a process of its own, two at once.

What Kubeflow does is done here by `Cluster`: it fills in the placeholders, and starts a step once those before it have ended. ML
Metadata is in MariaDB, as on a cluster, where that is installed.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from database_servers import PASSWORD, MariaDB
from shops import DAY, SHOP, YESTERDAY, Forks, arguments, runs, towers, write_shop

from pipeline import config as configuration
from pipeline import lock, store
from pipeline.executions import state
from pipeline.metadata import Records

AT_ONCE = 2


class Cluster:
    """Runs a compiled pipeline.

    Args:
        text: the pipeline's YAML.
        forks: where processes come from that have TFX loaded.
    """

    def __init__(self, text: str, forks: Forks) -> None:
        self._pipeline = next(yaml.safe_load_all(text))
        self._tasks = self._pipeline["root"]["dag"]["tasks"]
        self._forks = forks
        self.said: list[str] = []

    def run(
        self,
        faults: Mapping[str, tuple[str, int]] = {},
        failed: Callable[[str, str], None] = lambda run, name: None,
        **inputs: object,
    ) -> str:
        """Runs every step once those before it are done; returns the run's id.

        Args:
            faults: by task, a fault of its first attempt and the status that it ends with; the second one is left alone.
            failed: told the run and the task after each of them, before it is tried again.
            inputs: the run's parameters.
        """
        run, done, under_way = str(uuid4()), set[str](), dict[str, int]()
        faults = dict(faults)
        while len(done) < len(self._tasks):
            for name, task in self._tasks.items():
                is_ready = done >= set(task.get("dependentTasks", ()))
                if is_ready and len(under_way) < AT_ONCE and name not in {*done, *under_way}:
                    under_way[name] = self.start(name, run, faults[name][0] if name in faults else "", **inputs)
            time.sleep(0.02)
            for name in [name for name, process in under_way.items() if self._forks.has_ended(process)]:
                _, expected = faults.pop(name, ("", 0))
                self.end(under_way.pop(name), expected)
                if expected == 0:
                    done.add(name)
                else:
                    failed(run, name)
        assert not faults
        return run

    def step(self, name: str, run: str, expected: int = 0, **inputs: object) -> str:
        """Runs a single step; returns what it said."""
        return self.end(self.start(name, run, **inputs), expected)

    def start(self, name: str, run: str, fault: str = "", **inputs: object) -> int:
        component = self._pipeline["components"][self._tasks[name]["componentRef"]["name"]]
        container = self._pipeline["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        values = {
            key: self._value(given, run, inputs) for key, given in self._tasks[name]["inputs"]["parameters"].items()
        }
        words = [
            re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda found: values[found[1]], word)
            for word in [*container["command"], *container["args"]]
        ]
        assert "{{" not in " ".join(words)
        assert words[:3] == ["python", "-m", "pipeline.run_node"]
        return self._forks.start(*words[3:], fault=fault, program="run_node")

    def end(self, process: int, expected: int) -> str:
        answer = self._forks.end(process)
        self.said.append(answer.stdout + answer.stderr)
        assert answer.returncode == expected, self.said[-1]
        return self.said[-1]

    def _value(self, given: Mapping[str, Any], run: str, inputs: Mapping[str, object]) -> str:
        """As Kubeflow pastes it into a command: a text as it is, anything else as JSON."""
        if "runtimeValue" in given:
            return str(given["runtimeValue"]["constant"]).replace("{{$.pipeline_job_uuid}}", run)
        name = given["componentInputParameter"]
        declared = self._pipeline["root"]["inputDefinitions"]["parameters"][name]
        value = inputs[name] if name in inputs else declared["defaultValue"]
        return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module")
def metadata() -> Iterator[list[str]]:
    """The settings of MariaDB; none, which is an SQLite file, where it is not installed."""
    if MariaDB.missing():
        yield []
        return
    server = MariaDB()
    yield server.settings()
    server.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    write_shop(folder)
    return folder


@pytest.fixture(scope="module")
def options(root: Path, metadata: list[str]) -> list[str]:
    """As `ndr` takes them."""
    own = ["kubeflow.image=ndr", *metadata]
    return [*arguments(root), *(part for setting in own for part in ("--set", setting))]


@pytest.fixture(scope="module")
def cluster(forks: Forks, root: Path, options: list[str]) -> Cluster:
    target = root / "pipeline.yaml"
    answer = forks("kubeflow", "compile", "--output", str(target), *options)
    assert (answer.returncode, answer.stdout) == (0, f"wrote {target}\n"), answer.stderr
    text = target.read_text()
    assert PASSWORD not in text
    return Cluster(text, forks)


def records(options: list[str]) -> Records:
    return Records(store.connection(configuration.load(SHOP, options[3::2])))


def test_two_days_are_as_ndr_run_makes_them_though_steps_are_killed(
    cluster: Cluster, root: Path, options: list[str], undisturbed: Path
) -> None:
    cluster.run(date=str(DAY), days_back=1)
    faults = {
        "baseline": ("before:Baseline", -9),
        "catalogue": ("after:Catalogue", -9),
        "interactions": ("in:Interactions", -9),
        "transform": ("ending:Transform", 143),
        "trainer": ("training:7", -9),
        "pusher": ("pusher:4", -9),
    }
    known = records(options)
    left: dict[str, list[str]] = {}

    def note(run: str, name: str) -> None:
        attempts = known.attempts(f"{DAY}.{run}", name.capitalize())
        left[name] = [state(attempt) for attempt in attempts]

    run = cluster.run(faults, note, date=str(DAY))
    assert left == {**{name: ["unfinished"] for name in faults}, "baseline": [], "transform": ["canceled"]}
    found = runs(options)
    assert [(r["date"], r["state"], r["blessed"], r["version"]) for r in found] == [
        (str(YESTERDAY), "complete", True, 20261123001),
        (str(DAY), "complete", True, 20261124001),
    ]
    assert found[-1]["run"] == f"{DAY}.{run}" and found[-1]["given"]["base_day"] == str(YESTERDAY)
    assert towers(root) == towers(undisturbed)
    expected = runs(arguments(undisturbed))[-1]
    assert found[-1]["metrics"] == expected["metrics"]
    assert {step["node"] for step in found[-1]["steps"]} == {step["node"] for step in expected["steps"]}
    assert all(len(known.attempts(f"{DAY}.{run}", step["node"])) == 1 for step in found[-1]["steps"])


def test_a_step_that_is_done_is_not_done_again(cluster: Cluster, options: list[str]) -> None:
    last = runs(options)[-1]
    run = last["run"].partition(".")[2]
    for name in ("baseline", "trainer", "pusher"):
        assert "is done: nothing to do." in cluster.step(name, run, date=str(DAY))
    assert runs(options)[-1] == last


def test_a_day_that_is_done_is_passed_over_by_every_step(
    cluster: Cluster, forks: Forks, options: list[str], root: Path
) -> None:
    before = towers(root)
    for name in ("begin", "baseline", "trainer", "pusher", "end"):
        cluster.step(name, "again", date=str(DAY))
    last = runs(options)[-1]
    assert (last["run"], last["state"], last["steps"]) == (f"{DAY}.again", "passed over", [])
    assert towers(root) == before
    assert "is done with the same input" in forks("run", "--date", str(DAY), *options).stdout


def test_a_fault_of_the_data_of_the_user_and_of_the_moment_are_told_apart(
    cluster: Cluster, root: Path, options: list[str]
) -> None:
    tomorrow = DAY + timedelta(days=1)
    assert f"{tomorrow}: expected at least one csv file" in tell(cluster, "interactions", 65, tomorrow)
    other = [*configured(options), "trainer.towers={query: [8], item: [8]}"]
    cluster.step("begin", "other", date=str(DAY), settings=other)
    assert "ML Metadata knows no run" in cluster.step("trainer", "never-begun", 1, date=str(DAY))
    assert "It comes behind" in cluster.step("transform", "other", 1, date=str(DAY), settings=other)
    with lock.exclusive(root):
        assert "is in use by another run" in cluster.step("begin", "late", 75, date=str(DAY))
    with lock.shared(root):
        assert "is in use by another run" in cluster.step("end", "late", 75, date=str(DAY))


def test_the_password_is_in_nothing_that_was_written(cluster: Cluster, root: Path) -> None:
    assert len(cluster.said) > 50
    assert not any(PASSWORD in said for said in cluster.said)
    assert not any(PASSWORD.encode() in path.read_bytes() for path in root.rglob("*") if path.is_file())


def tell(cluster: Cluster, name: str, status: int, day: date) -> str:
    """What a step says that fails, in a run of its own that comes as far as there."""
    run = uuid4().hex
    for before in ("begin", "catalogue", "warm-start"):
        cluster.step(before, run, date=str(day))
    return cluster.step(name, run, status, date=str(day))


def configured(options: list[str]) -> list[str]:
    """The settings of a list of options."""
    return options[3::2]
