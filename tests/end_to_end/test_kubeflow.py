"""Days on Kubeflow: the compiled pipeline's own commands, each in a process of its own, two at once.

The commands are those that the `kfp` package's local runner makes of the compiled pipeline, which agrees with Kubeflow's driver and
launcher (`tests/pipeline/kubeflow/test_kubeflow_answers.py`). The rest of Kubeflow is `Cluster`: it starts a pod once
those before it have ended, again where it fails, and leaves out what Begin has nothing to hand to. ML Metadata is in MariaDB, as on
a cluster, where it is installed.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from pipeline import config as configuration
from pipeline import lock
from pipeline.monitoring.missed import oldest_missed
from pipeline.records import REFRESH, Records, connection, state
from tests import kubeflow_judge
from tests.database_servers import PASSWORD, MariaDB
from tests.end_to_end.shops import DAY, SHOP, YESTERDAY, Undisturbed, arguments, towers, write_shop
from tests.forks import Forks

AT_ONCE = 2


class Cluster:
    """Runs a compiled pipeline.

    Args:
        text: the pipeline's YAML.
        forks: where processes come from that have TFX loaded.
        outputs: a folder for what tasks hand on.
    """

    def __init__(self, text: str, forks: Forks, outputs: Path) -> None:
        self._text = text
        self._tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"]
        self._forks = forks
        self._outputs = outputs
        self.said: list[str] = []
        self.tasks = set(self._tasks)

    def run(
        self,
        faults: Mapping[str, Sequence[tuple[str, int]]] = {},
        failed: Callable[[str, str], None] = lambda run, fault: None,
        **inputs: object,
    ) -> tuple[str, set[str]]:
        """Runs every task once those before it are done.

        Args:
            faults: by task, the faults of its first attempts and the statuses that they end with; the next one is left alone.
            failed: told the run and the fault after each of them, before the task is tried again.
            inputs: the run's parameters.

        Returns:
            The run's id, and the tasks that were left out.
        """
        run, done, left_out, under_way = str(uuid4()), set[str](), set[str](), dict[str, int]()
        left = {name: list(each) for name, each in faults.items()}
        while len(done | left_out) < len(self._tasks):
            for name, task in self._tasks.items():
                behind = set(task.get("dependentTasks", ()))
                if name in {*done, *left_out, *under_way} or not done | left_out >= behind:
                    continue
                if behind & left_out or not self._is_to_do(name, run):
                    left_out.add(name)
                elif len(under_way) < AT_ONCE:
                    fault = left[name][0][0] if left.get(name) else ""
                    under_way[name] = self.start(name, run, fault, **inputs)
            time.sleep(0.02)
            for name in [name for name, process in under_way.items() if self._forks.has_ended(process)]:
                fault, expected = left[name].pop(0) if left.get(name) else ("", 0)
                self.end(under_way.pop(name), expected)
                if expected == 0:
                    done.add(name)
                else:
                    failed(run, fault)
        assert not any(left.values())
        return run, left_out

    def task_of(self, step: str) -> str:
        """The task that runs a step, which others may share."""
        executors = next(yaml.safe_load_all(self._text))["deploymentSpec"]["executors"]
        (task,) = [name for name in self._tasks if step in executors[f"exec-{name}"]["container"]["args"]]
        return task

    def step(self, name: str, run: str, expected: int = 0, **inputs: object) -> str:
        """Runs a single task; returns what it said."""
        return self.end(self.start(name, run, fault="", **inputs), expected)

    def start(self, name: str, run: str, fault: str = "", **inputs: object) -> int:
        begun = self.output(run, "begin", "day")
        outputs = {"begin": {"day": begun.read_text() if begun.exists() else inputs.get("date", "")}}
        folder = str(begun.parents[1] / name)
        words = kubeflow_judge.command(self._text, name, inputs, run, outputs, folder)
        assert words[:3] == ["python", "-m", "pipeline.run_node"] and "{{" not in " ".join(words)
        return self._forks.start(*words[3:], fault=fault, program="run_node")

    def end(self, process: int, expected: int) -> str:
        answer = self._forks.end(process)
        self.said.append(answer.stdout + answer.stderr)
        assert answer.returncode == expected, self.said[-1]
        return self.said[-1]

    def output(self, run: str, name: str, key: str) -> Path:
        """Where a task leaves what it hands on."""
        return self._outputs / run / name / key

    def _is_to_do(self, name: str, run: str) -> bool:
        condition = self._tasks[name].get("triggerPolicy", {}).get("condition")
        assert condition in (None, "inputs.parameter_values['date'] != ''")
        return condition is None or self.output(run, "begin", "day").read_text() != ""


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
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"\d+ steps, which start \d+ pods, or [1-5] if the day is done; a workflow of", answer.stdout)
    text = target.read_text()
    assert PASSWORD not in text
    return Cluster(text, forks, root / "outputs")


def records(options: list[str]) -> Records:
    return Records(connection(configuration.load(SHOP, options[3::2])))


def back_to(day: date) -> int:
    """How many days back from today a day lies."""
    return (datetime.now(UTC).date() - day).days


@pytest.fixture(scope="module")
def refreshes(forks: Forks, root: Path, options: list[str]) -> Cluster:
    """The same cluster, on which refreshes have a pipeline of their own."""
    target = root / "refresh.yaml"
    answer = forks("kubeflow", "compile", "--refresh", "--output", str(target), *options)
    assert answer.returncode == 0, answer.stderr
    return Cluster(target.read_text(), forks, root / "outputs")


def test_two_days_are_as_ndr_run_makes_them_though_steps_are_killed_and_the_first_is_refreshed(
    cluster: Cluster, refreshes: Cluster, root: Path, options: list[str], undisturbed: Undisturbed, forks: Forks
) -> None:
    cluster.run(date=str(YESTERDAY))
    # The next day's catalogue is there, in which most items look otherwise: too much, unless it is allowed.
    step = refreshes.task_of("CatalogueComparison")
    begun = "refused"
    refreshes.step("begin", begun, date=str(DAY))
    said = refreshes.step(step, begun, 65, date=str(DAY))
    assert "would add 0, change 1" in said and "refresh.most_changed allows 20.0%" in said
    allowed = [*configured(options), "refresh.most_changed=1.0"]
    task = refreshes.task_of("Pusher")
    run, left_out = refreshes.run({task: [("pusher:4", -9)]}, date=str(DAY), settings=allowed)
    assert not left_out
    refreshed = forks.runs(options)[-1]
    assert (refreshed["run"], refreshed["state"]) == (f"{DAY}.refresh-{run}", "complete")
    assert (refreshed["version"], refreshed["given"]["refreshes"]) == (20261123002, 20261123001)
    # What is done starts Begin alone, as for a day.
    _, left_out = refreshes.run(date=str(DAY), settings=allowed)
    assert left_out == refreshes.tasks - {"begin"}
    before = towers(root)
    faults: dict[str, list[tuple[str, int]]] = {}
    for step, fault, status in (
        ("Catalogue", "after:Catalogue", -9),
        ("Interactions", "in:Interactions", -9),
        ("Baseline", "before:Baseline", -9),
        ("Transform", "ending:Transform", 143),
        ("Trainer", "training:7", -9),
        ("Pusher", "pusher:4", -9),
    ):
        faults.setdefault(cluster.task_of(step), []).append((fault, status))
    known = records(options)
    left: dict[str, list[str]] = {}

    def note(run: str, fault: str) -> None:
        step = {"training:7": "Trainer", "pusher:4": "Pusher"}.get(fault, fault.partition(":")[2])
        left[step] = [state(attempt) for attempt in known.attempts(f"{DAY}.{run}", step)]

    run, left_out = cluster.run(faults, note, days_back=back_to(DAY))  # the day before is done: Begin chooses this one
    assert not left_out
    killed = ("Catalogue", "Interactions", "Trainer", "Pusher")
    assert left == {**{step: ["unfinished"] for step in killed}, "Baseline": [], "Transform": ["canceled"]}
    found = [each for each in forks.runs(options) if ".refresh-" not in each["run"]]
    assert [(r["date"], r["state"], r["blessed"], r["version"]) for r in found] == [
        (str(YESTERDAY), "complete", True, 20261123001),
        (str(DAY), "complete", True, 20261124001),
    ]
    assert found[-1]["run"] == f"{DAY}.{run}" and found[-1]["given"]["base_day"] == str(YESTERDAY)
    # Nothing of the day is the refresh's: it has what it would have without.
    assert {name: content for name, content in towers(root).items() if name not in before} == {
        name: content for name, content in towers(undisturbed.left).items() if "/20261123001/" not in name
    }
    expected = undisturbed.runs[-1]
    assert found[-1]["metrics"] == expected["metrics"]
    assert {step["node"] for step in found[-1]["steps"]} == {step["node"] for step in expected["steps"]}
    assert all(len(known.attempts(f"{DAY}.{run}", step["node"])) == 1 for step in found[-1]["steps"])


def test_a_step_that_is_done_is_not_done_again(cluster: Cluster, options: list[str], forks: Forks) -> None:
    last = forks.runs(options)[-1]
    run = last["run"].partition(".")[2]
    for step in ("Baseline", "Trainer", "Pusher"):
        assert f"{step} is done: nothing to do." in cluster.step(cluster.task_of(step), run, date=str(DAY))
    assert forks.runs(options)[-1] == last


def test_a_begin_that_is_repeated_after_midnight_chooses_the_same_day(
    cluster: Cluster, options: list[str], forks: Forks
) -> None:
    run = uuid4().hex
    for back in (back_to(DAY) - 1, back_to(DAY) - 2):
        cluster.step("begin", run, days_back=back)
        assert cluster.output(run, "begin", "day").read_text() == str(DAY + timedelta(days=1))
    assert [each["run"] for each in forks.runs(options) if run in each["run"]] == [f"{DAY + timedelta(days=1)}.{run}"]


@pytest.mark.parametrize("given", [{"date": str(DAY)}, {"days_back": back_to(DAY)}])
def test_where_there_is_nothing_to_do_begin_alone_is_started(
    cluster: Cluster, forks: Forks, options: list[str], root: Path, given: dict[str, Any]
) -> None:
    before = towers(root)
    run, left_out = cluster.run(**given)
    assert left_out == cluster.tasks - {"begin"}
    last = forks.runs(options)[-1]
    assert (last["run"], last["state"], last["steps"]) == (f"{DAY}.{run}", "passed over", [])
    assert towers(root) == before


def test_begin_does_not_make_up_for_a_day_done_by_ndr_run(forks: Forks, root: Path, options: list[str]) -> None:
    assert "is done with the same input" in forks("run", "--date", str(DAY), *options).stdout
    known = records(options)
    name = configuration.load(SHOP, configured(options)).name
    assert oldest_missed(known, name, DAY, 7) is None
    # Tomorrow was begun above; the days before the first that was ever begun are nobody's to make up for.
    assert oldest_missed(known, name, DAY + timedelta(days=2), 7) == DAY + timedelta(days=1)
    assert oldest_missed(known, name, DAY + timedelta(days=2), 0) == DAY + timedelta(days=2)


def test_faults_of_data_user_and_moment_have_different_statuses(
    cluster: Cluster, root: Path, options: list[str], forks: Forks
) -> None:
    tomorrow = DAY + timedelta(days=1)
    assert f"{tomorrow}: expected at least one csv file" in tell(cluster, cluster.task_of("Interactions"), 65, tomorrow)
    other = [*configured(options), "trainer.towers={query: [8], item: [8]}"]
    cluster.step("begin", "other", date=str(DAY), settings=other)
    assert "ML Metadata has no run" in cluster.step("ranker", "never-begun", 1, date=str(DAY))
    assert "It must come after" in cluster.step("infra-validator", "other", 1, date=str(DAY), settings=other)
    (complete,) = [
        each["run"].partition(".")[2]
        for each in forks.runs(options)
        if (each["date"], each["state"]) == (str(DAY), "complete") and f".{REFRESH}" not in each["run"]
    ]
    with lock.exclusive(root):
        assert "is in use by another run" in cluster.step("begin", "late", 75, date=str(DAY))
    with lock.shared(root):
        assert "is in use by another run" in cluster.step("end", complete, 75, date=str(DAY))


def test_the_password_is_in_nothing_that_was_written(cluster: Cluster, root: Path) -> None:
    assert len(cluster.said) > 25
    assert not any(PASSWORD in said for said in cluster.said)
    assert not any(PASSWORD.encode() in path.read_bytes() for path in root.rglob("*") if path.is_file())


def tell(cluster: Cluster, name: str, status: int, day: date) -> str:
    """What a step says that fails, in a run of its own that comes as far as there."""
    run = uuid4().hex
    for before in ("begin", "catalogue"):
        cluster.step(before, run, date=str(day))
    return cluster.step(name, run, status, date=str(day))


def configured(options: list[str]) -> list[str]:
    """The settings of a list of options."""
    return options[3::2]
