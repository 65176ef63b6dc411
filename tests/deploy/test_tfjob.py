"""The Trainer's step on several machines: what the manifest starts is there, and each pod is one that Kubernetes takes."""

import importlib.util
import inspect
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline import run_node
from pipeline.create import TRAINER

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBECTL = shutil.which("kubectl")


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    if KUBECTL is None:
        pytest.skip("kubectl is not installed, which renders the manifests")
    command = [KUBECTL, "kustomize", DEPLOY / "overlays" / "example" / "trainer"]
    rendered: dict[str, Any] = yaml.safe_load(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return rendered


def test_each_pod_is_as_kubernetes_declares_it(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    for replicas in job["spec"]["tfReplicaSpecs"].values():
        pod = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "trainer"},
            "template": replicas["template"],
        }
        for version in ("1.31", "1.37"):
            kubernetes_validate.validate(pod, version, strict=True)
        (container,) = replicas["template"]["spec"]["containers"]
        # By these two names the operator finds the container that is told of the others, and where.
        assert container["name"] == "tensorflow" and container["ports"][0]["name"] == "tfjob-port"
        assert container["image"] == "registry.example/ndr:2026-11-24"
        assert replicas["restartPolicy"] == "OnFailure"  # 75 is no fault that stays, as `ExitCode` would take it


def test_what_the_pods_start_is_there(job: dict[str, Any]) -> None:
    (chief,), (worker,) = (
        job["spec"]["tfReplicaSpecs"][kind]["template"]["spec"]["containers"] for kind in ("Chief", "Worker")
    )
    for container in (chief, worker):
        assert container["command"][:2] == ["python", "-m"]
        assert importlib.util.find_spec(container["command"][2])
    given = dict(part.removeprefix("--").split("=", 1) for part in chief["command"][3:] + chief["args"])
    assert given["node"] == TRAINER
    options = {name.replace("_", "-") for name in inspect.signature(run_node.step).parameters} - {"day"} | {"date"}
    assert {"node", "run-id", "date", "config"} <= given.keys() <= options
