"""The manifests: rendered by kubectl, held against Kubernetes's own schemas, and against what they and the project name."""

import base64
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from components.pusher import joint, tf_serving
from pipeline.kubeflow.settings import KubeflowSettings
from pipeline.metadata_settings import ServerSettings
from serving import launch

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
EXAMPLE = "overlays/example"
KUBECTL = shutil.which("kubectl")
KUBERNETES = ("1.31", "1.37")  # the oldest and the newest that these are checked for
WORKLOADS = ("Deployment", "StatefulSet", "Job")
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

Resource = Mapping[str, Any]


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """All of the example, with the secret that a user would have written."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed, which renders the manifests")
    copy = tmp_path_factory.mktemp("copy") / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("metadata.env"))
    (copy / EXAMPLE / "metadata.env").write_text((DEPLOY / EXAMPLE / "metadata.env.example").read_text())
    return [
        resource
        for folder in (EXAMPLE, f"{EXAMPLE}/doctor")
        for resource in yaml.safe_load_all(
            subprocess.run([KUBECTL, "kustomize", copy / folder], check=True, capture_output=True, text=True).stdout
        )
    ]


def of_kind(resources: list[Resource], *kinds: str) -> dict[str, Resource]:
    return {each["metadata"]["name"]: each for each in resources if each["kind"] in kinds}


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The templates of pods, by what they are of."""
    return {name: each["spec"]["template"] for name, each in of_kind(resources, *WORKLOADS).items()}


def containers(pod: Resource) -> Iterator[Resource]:
    yield from pod["spec"].get("initContainers", [])
    yield from pod["spec"]["containers"]


@pytest.mark.parametrize("version", KUBERNETES)
def test_everything_is_as_kubernetes_declares_it(resources: list[Resource], version: str) -> None:
    assert Counter(each["kind"] for each in resources) == {
        "ServiceAccount": 2, "Secret": 1, "Service": 2, "PersistentVolumeClaim": 1, "StatefulSet": 1, "Deployment": 1,
        "Job": 1, "PodDisruptionBudget": 1, "NetworkPolicy": 1,
    }  # fmt: skip
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_word_that_kubernetes_does_not_know_is_found(resources: list[Resource]) -> None:
    (policy,) = of_kind(resources, "PodDisruptionBudget").values()
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**policy, "spec": {**policy["spec"], "minAvailabel": 1}}, KUBERNETES[0], strict=True
        )


def test_every_selector_selects_the_pods_that_it_is_meant_for_and_no_other(resources: list[Resource]) -> None:
    def selected(labels: Mapping[str, str]) -> list[str]:
        own = {name: pod["metadata"]["labels"] for name, pod in pods(resources).items()}
        return [name for name, has in own.items() if labels and labels.items() <= has.items()]

    for name, resource in of_kind(resources, "Deployment", "StatefulSet", "PodDisruptionBudget").items():
        assert selected(resource["spec"]["selector"]["matchLabels"]) == [name]
    for name, service in of_kind(resources, "Service").items():
        assert selected(service["spec"]["selector"]) == [name]
    (serving,) = of_kind(resources, "Deployment").values()
    for constraint in serving["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert selected(constraint["labelSelector"]["matchLabels"]) == ["ndr-serving"]
    (policy,) = (each["spec"] for each in of_kind(resources, "NetworkPolicy").values())
    assert selected(policy["podSelector"]["matchLabels"]) == ["metadata-db"]
    (rule,) = policy["ingress"]
    by_argo, by_label = (peer["podSelector"] for peer in rule["from"])
    assert by_argo == {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]}
    assert selected(by_label["matchLabels"]) == ["ndr-doctor"]
    assert "egress" not in policy and policy["policyTypes"] == ["Ingress", "Egress"]  # none is let out


def test_every_port_that_is_named_is_a_containers(resources: list[Resource]) -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for each in containers(pod) for port in each.get("ports", [])}
        for name, pod in pods(resources).items()
    }
    for name, service in of_kind(resources, "Service").items():
        for port in service["spec"]["ports"]:
            assert ports[name][port["targetPort"]] == port["port"]
    for name, policy in of_kind(resources, "NetworkPolicy").items():
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports[name].keys()
    for name, pod in pods(resources).items():
        for container in containers(pod):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                given = container.get(probe, {})
                for way in ("httpGet", "tcpSocket"):
                    assert given.get(way, {}).get("port", next(iter(ports[name]), None)) in {*ports[name], None}


def test_every_account_claim_and_secret_that_is_named_is_there(resources: list[Resource]) -> None:
    accounts, claims = of_kind(resources, "ServiceAccount"), of_kind(resources, "PersistentVolumeClaim")
    secrets = of_kind(resources, "Secret")
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "default") in {*accounts, "default"}
        made = {each["metadata"]["name"] for each in of_kind(resources, "StatefulSet").get(name, {}).get(
            "spec", {}).get("volumeClaimTemplates", [])}  # fmt: skip
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "ndr-root") in claims
            assert volume.get("secret", {}).get("secretName", "ndr-metadata") in secrets
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= {*volumes, *made}
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert reference["key"] in secrets[reference["name"]]["data"]
    assert base64.b64decode(secrets["ndr-metadata"]["data"]["password"])[-1:] != b"\n"


def test_pods_are_confined_have_no_token_and_say_what_they_need(resources: list[Resource]) -> None:
    for pod in pods(resources).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == CONFINED
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert re.search(r":[\w.-]+\d", container["image"])  # a version, never `latest`
    for account in of_kind(resources, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    assert not {each["kind"] for each in resources} & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    assert {each["metadata"]["namespace"] for each in resources} == {"ndr"}


def test_serving_never_has_fewer_servers_and_reads_what_a_push_writes(
    resources: list[Resource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deployment,) = of_kind(resources, "Deployment").values()
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (budget,) = of_kind(resources, "PodDisruptionBudget").values()
    assert 0 < budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    spec = deployment["spec"]["template"]["spec"]
    (server,), (waiting,) = spec["containers"], spec["initContainers"]
    assert all(mount["readOnly"] for mount in server["volumeMounts"] if mount["name"] == "root")
    # The very arguments that `ndr serve` starts TF Serving with, for the same folder.
    started: list[list[str]] = []
    monkeypatch.setattr(launch.os, "execv", lambda _, words: started.append(words))
    monkeypatch.setattr(launch.manifests, "read", lambda _: ["a version"])
    launch._become_tf_serving("tensorflow_model_server", "/ndr/serving", 8500, 8501, lambda _: None)
    assert started == [[*server["command"], *server["args"]]]
    assert f"/ndr/serving/{tf_serving.MODEL_CONFIG}" in waiting["command"][-1]
    path = server["readinessProbe"]["httpGet"]["path"]
    assert re.fullmatch(r"/v1/models/(\w+)/metadata", path)[1] == joint.RETRIEVER_KEY  # type: ignore[index]


def test_the_configuration_of_the_docs_names_what_is_deployed(resources: list[Resource]) -> None:
    text = (PROJECT / "docs" / "kubeflow.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kubeflow:" in each]
    given = yaml.safe_load(block)
    kubeflow, metadata = KubeflowSettings(**given["kubeflow"]), ServerSettings(**given["metadata"])
    for volume in kubeflow.volumes:
        assert volume.claim in of_kind(resources, "PersistentVolumeClaim")
    for secret in kubeflow.secrets:
        data = of_kind(resources, "Secret")[secret.name]["data"]
        assert set(secret.env.values()) <= data.keys()
    assert metadata.password.env in {variable for secret in kubeflow.secrets for variable in secret.env}
    database = of_kind(resources, "StatefulSet")[metadata.host]
    assert metadata.host in of_kind(resources, "Service")
    (server,) = database["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in server["env"]}
    assert (environment["MARIADB_DATABASE"], environment["MARIADB_USER"]) == (metadata.database, metadata.user)
    assert metadata.port == server["ports"][0]["containerPort"]
    # The doctor looks at the same.
    (doctor,) = pods(resources)["ndr-doctor"]["spec"]["containers"]
    told = dict(word.removeprefix("--set=").split("=", 1) for word in doctor["args"])
    assert told["root"] == given["root"] == kubeflow.volumes[0].at == doctor["volumeMounts"][0]["mountPath"]
    assert ServerSettings(**yaml.safe_load(told["metadata"])) == metadata
    assert doctor["image"] == kubeflow.image


def test_no_secret_is_kept_in_git() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", f"deploy/{EXAMPLE}/metadata.env"], cwd=PROJECT, capture_output=True, check=False
    )
    assert ignored.returncode == 0
