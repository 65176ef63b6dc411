"""The manifests as kubectl renders them, and the schemas that they are held against."""

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = "overlays/example"
KUBERNETES = ("1.31", "1.37")  # the oldest and the newest that these are checked for
# Go modules that hold the schemas of custom resources, and where.
OPERATOR = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "example/prometheus-operator-crd/monitoring.coreos.com",
)
PUBLISHED = {
    "JobSet": ("sigs.k8s.io/jobset@v0.11.1", "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"),
    "PodMonitor": (OPERATOR[0], f"{OPERATOR[1]}_podmonitors.yaml"),
    "PrometheusRule": (OPERATOR[0], f"{OPERATOR[1]}_prometheusrules.yaml"),
}  # fmt: skip

Resource = Mapping[str, Any]


def copy(folder: Path, *components: str) -> Path:
    """A copy of deploy/ as a user would have it: the example with its password, its pipeline, and optional components."""
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("metadata.env"))
    example = folder / EXAMPLE
    (example / "metadata.env").write_text((example / "metadata.env.example").read_text())
    (example / "daily" / "pipeline.yaml").write_text("pipelineInfo: {name: radio}\n")
    if components:
        everything = example / "kustomization.yaml"
        before = everything.read_text()
        options = ", ".join(f"../../components/{name}" for name in components)
        everything.write_text(before.replace("components: [values]", f"components: [{options}, values]"))
        assert everything.read_text() != before
    return folder


def render(folder: Path) -> list[Resource]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the manifests")
    done = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(resources: list[Resource], *kinds: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in resources if each["kind"] in kinds}


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The templates of pods, by what they are of."""
    jobs = {name: each["spec"]["jobTemplate"] for name, each in of_kind(resources, "CronJob").items()}
    found = {**of_kind(resources, "Deployment", "StatefulSet", "Job"), **jobs}
    for name, jobset in of_kind(resources, "JobSet").items():
        found.update({f"{name}-{each['name']}": each["template"] for each in jobset["spec"]["replicatedJobs"]})
    return {name: each["spec"]["template"] for name, each in found.items()}


def containers(pod: Resource) -> Iterator[Resource]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


def validate(resource: Resource, version: str) -> None:
    """Holds a resource against the schema that its makers published; a word that they do not know is a fault.

    Raises:
        kubernetes_validate.ValidationError, jsonschema.ValidationError: it does not fit.
    """
    if resource["kind"] in PUBLISHED:
        jsonschema.Draft202012Validator(_published(resource["kind"], resource["apiVersion"])).validate(resource)
    else:
        kubernetes_validate.validate(resource, version, strict=True)


@functools.cache
def _published(kind: str, api_version: str) -> Resource:
    """The schema of a custom resource, out of the Go module of those who define it."""
    if shutil.which("go") is None:
        pytest.skip(f"go is not installed, which fetches the schema of {kind}")
    module, path = PUBLISHED[kind]
    done = subprocess.run(
        ["go", "mod", "download", "-json", module], capture_output=True, text=True, cwd="/", check=False
    )
    answer = json.loads(done.stdout or "{}")
    if done.returncode:
        pytest.skip(
            f"{module} could not be fetched, which has the schema of {kind}: {answer.get('Error', done.stderr)}"
        )
    definition = yaml.safe_load((Path(answer["Dir"]) / path).read_text())["spec"]
    assert definition["names"]["kind"] == kind
    (version,) = (
        each
        for each in definition["versions"]
        if f"{definition['group']}/{each['name']}" == api_version and each["served"]
    )
    return _strict({**version["schema"]["openAPIV3Schema"]}, is_resource=True)


def _strict(schema: Resource, *, is_resource: bool = False) -> Resource:
    """As Kubernetes checks it with `--validate=strict`: a field that is not declared is refused."""
    strict = dict(schema)
    if "properties" in schema:
        strict["properties"] = {name: _strict(each) for name, each in schema["properties"].items()}
        if is_resource:
            strict["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            strict["additionalProperties"] = False
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    return strict
