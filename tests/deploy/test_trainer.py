"""The Trainer's step on several machines: the processes know each other, and what the manifest starts is there."""

import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import typer

from components.trainer import strategies
from pipeline import run_node
from pipeline.day_inputs import TRAINER
from schemas.errors import Status
from tests.deploy.rendered import EXAMPLE, KUBERNETES, Resource, copy, of_kind, render

WORKERS = 3


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    return render(copy(tmp_path_factory.mktemp("copy") / "deploy") / EXAMPLE / "trainer")


@pytest.fixture(scope="module")
def jobs(resources: list[Resource]) -> dict[str, Any]:
    """The Jobs that the JobSet makes, by name."""
    (jobset,) = of_kind(resources, "JobSet").values()
    return {each["name"]: each["template"]["spec"] for each in jobset["spec"]["replicatedJobs"]}


def processes(resources: list[Resource], jobs: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod's name in DNS, and its TF_CONFIG: as JobSet names pods, and as the kubelet puts variables together."""
    (jobset,), (settings,) = of_kind(resources, "JobSet"), of_kind(resources, "ConfigMap").values()
    for job, spec in jobs.items():
        (container,) = spec["template"]["spec"]["containers"]
        for index in range(spec["completions"]):
            variables: dict[str, str] = {}
            for variable in container["env"]:
                source = variable.get("valueFrom", {})
                if "configMapKeyRef" in source:
                    value = settings["data"][source["configMapKeyRef"]["key"]]
                elif "fieldRef" in source:
                    assert source["fieldRef"]["fieldPath"].endswith("['batch.kubernetes.io/job-completion-index']")
                    value = str(index)
                else:  # of the variables before it alone
                    value = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], variable.get("value", ""))  # noqa: B023
                variables[variable["name"]] = value
            yield f"{jobset}-{job}-0-{index}.{jobset}", strategies.task_of(variables[strategies.TF_CONFIG])


def test_tf_config_gives_each_process_the_address_that_its_pod_has(
    resources: list[Resource], jobs: dict[str, Any]
) -> None:
    tasks = dict(processes(resources, jobs))
    assert {name: task["address"] for name, task in tasks.items()} == {
        name: f"{name}:2222"
        for name in (
            "ndr-trainer-chief-0-0.ndr-trainer",
            *(f"ndr-trainer-worker-0-{n}.ndr-trainer" for n in range(WORKERS)),
        )
    }
    clusters = [task["cluster"] for task in tasks.values()]
    assert clusters == clusters[:1] * (1 + WORKERS)


@pytest.mark.parametrize("version", KUBERNETES)
def test_each_job_is_as_kubernetes_declares_it(jobs: dict[str, Any], version: str) -> None:
    for name, spec in jobs.items():
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(job, version, strict=True)
        assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
        # A fault that stays ends the training; what passes is tried again.
        statuses = {
            value
            for rule in spec["podFailurePolicy"]["rules"]
            for value in rule.get("onExitCodes", {}).get("values", [])
        }
        stay = {Status.USER_FAULT, Status.DATA_FAULT, Status.INTERNAL_FAULT}
        assert statuses == {2, *map(int, stay)}


def test_the_pods_commands_exist(jobs: dict[str, Any]) -> None:
    (chief,), (worker,) = (jobs[name]["template"]["spec"]["containers"] for name in ("chief", "worker"))
    for container in (chief, worker):
        assert container["command"][:2] == ["python", "-m"]
        assert importlib.util.find_spec(container["command"][2])
    given = dict(part.removeprefix("--").split("=", 1) for part in chief["command"][3:] + chief["args"])
    assert given["node"] == TRAINER
    app = typer.Typer()
    app.command()(run_node.step)
    options = {word.removeprefix("--") for each in typer.main.get_command(app).params for word in each.opts}
    assert {"node", "run-id", "date", "config"} <= given.keys() <= options
