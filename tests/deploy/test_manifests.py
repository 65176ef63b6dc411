"""The manifests: rendered by kubectl, held against the published schemas, and against what they and the project name."""

import base64
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.pusher import tf_serving
from ndr_client.served import MODELS
from pipeline.kubeflow.settings import KubeflowSettings
from pipeline.metadata_settings import ServerSettings
from schemas.errors import Status
from serving import launch
from tests.deploy.rendered import (
    DEPLOY,
    EXAMPLE,
    KUBERNETES,
    Resource,
    containers,
    copy,
    of_kind,
    pods,
    render,
    validate,
)

PROJECT = Path(__file__).parents[2]
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """All of the example."""
    example = copy(tmp_path_factory.mktemp("copy") / "deploy", "autoscaling", "monitoring") / EXAMPLE
    return [each for folder in (".", "doctor", "daily", "restore", "trainer") for each in render(example / folder)]


@pytest.mark.parametrize("version", KUBERNETES)
def test_everything_is_as_kubernetes_declares_it(resources: list[Resource], version: str) -> None:
    assert Counter(each["kind"] for each in resources) == {
        "Namespace": 1, "ServiceAccount": 3, "Role": 1, "RoleBinding": 1, "Secret": 1, "ConfigMap": 6, "Service": 3,
        "PersistentVolumeClaim": 2, "StatefulSet": 1, "Deployment": 1, "Job": 2, "CronJob": 2, "JobSet": 1, "PodMonitor": 1,
        "PrometheusRule": 1, "PodDisruptionBudget": 1, "HorizontalPodAutoscaler": 1, "NetworkPolicy": 2,
    }  # fmt: skip
    for resource in resources:
        validate(resource, version)


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "JobSet", "PodMonitor", "PrometheusRule"])
def test_an_unknown_field_is_refused(resources: list[Resource], kind: str) -> None:
    (resource,) = of_kind(resources, kind).values()
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError), match="minAvailabel"):
        validate({**resource, "spec": {**resource["spec"], "minAvailabel": 1}}, KUBERNETES[0])


def test_every_selector_selects_the_pods_that_it_is_meant_for_and_no_other(resources: list[Resource]) -> None:
    def selected(labels: Mapping[str, str]) -> list[str]:
        own = {name: pod["metadata"]["labels"] for name, pod in pods(resources).items()}
        return [name for name, has in own.items() if labels and labels.items() <= has.items()]

    for name, resource in of_kind(resources, "Deployment", "StatefulSet", "PodDisruptionBudget").items():
        assert selected(resource["spec"]["selector"]["matchLabels"]) == [name]
    for name, service in of_kind(resources, "Service").items():
        assert selected(service["spec"]["selector"]) == [name.removesuffix("-grpc")]
    (serving,) = of_kind(resources, "Deployment").values()
    for constraint in serving["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert selected(constraint["labelSelector"]["matchLabels"]) == ["ndr-serving"]
    (monitor,) = of_kind(resources, "PodMonitor").values()
    assert selected(monitor["spec"]["selector"]["matchLabels"]) == ["ndr-serving"]
    policies = {name: each["spec"] for name, each in of_kind(resources, "NetworkPolicy").items()}
    for name, policy in policies.items():
        assert selected(policy["podSelector"]["matchLabels"]) == [name]
        assert "egress" not in policy and policy["policyTypes"] == ["Ingress", "Egress"]  # none is let out
    (rule,) = policies["metadata-db"]["ingress"]
    by_argo, by_label = (peer["podSelector"] for peer in rule["from"])
    assert by_argo == {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]}
    assert set(selected(by_label["matchLabels"])) == {
        "ndr-doctor", "ndr-daily", "metadata-restore", "metadata-backup", "ndr-trainer-chief"
    }  # fmt: skip
    (claim,) = (each["spec"]["scaleTargetRef"] for each in of_kind(resources, "HorizontalPodAutoscaler").values())
    assert claim["name"] in of_kind(resources, claim["kind"])


def test_every_port_that_is_named_is_a_containers(resources: list[Resource]) -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for each in containers(pod) for port in each.get("ports", [])}
        for name, pod in pods(resources).items()
    }
    for name, service in of_kind(resources, "Service").items():
        for port in service["spec"]["ports"]:
            assert ports[name.removesuffix("-grpc")][port["targetPort"]] == port["port"]
    for name, monitor in of_kind(resources, "PodMonitor").items():
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= ports[name].keys()
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
    secrets, settings = of_kind(resources, "Secret"), of_kind(resources, "ConfigMap")
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec.get("serviceAccountName", "default") in {*accounts, "default"}
        made = {each["metadata"]["name"] for each in of_kind(resources, "StatefulSet").get(name, {}).get(
            "spec", {}).get("volumeClaimTemplates", [])}  # fmt: skip
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "ndr-root") in claims
            assert volume.get("secret", {}).get("secretName", "ndr-metadata") in secrets
            assert volume.get("configMap", {}).get("name", "ndr-trainer") in settings
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= {*volumes, *made}
            # What is run or read out of a ConfigMap is in it.
            for mount in container["volumeMounts"]:
                if source := volumes.get(mount["name"], {}).get("configMap"):
                    words = [*container.get("command", []), *container.get("args", [])]
                    wanted = re.findall(rf"{mount['mountPath']}/([\w.]+)", " ".join(words))
                    assert wanted and set(wanted) <= settings[source["name"]]["data"].keys()
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert reference["key"] in secrets[reference["name"]]["data"]
    assert base64.b64decode(secrets["ndr-metadata"]["data"]["password"])[-1:] != b"\n"


def test_pods_are_confined_have_no_token_and_say_what_they_need(resources: list[Resource]) -> None:
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        tokens = [
            source["serviceAccountToken"]["audience"]
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
        ]
        assert tokens == (["pipelines.kubeflow.org"] if name == "ndr-daily" else [])
        for container in containers(pod):
            assert container["securityContext"] == CONFINED
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"])
    for account in of_kind(resources, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    (role,), (binding,) = of_kind(resources, "Role").values(), of_kind(resources, "RoleBinding").values()
    assert {group for rule in role["rules"] for group in rule["apiGroups"]} == {"pipelines.kubeflow.org"}
    assert [each["name"] for each in binding["subjects"]] == ["ndr-daily"]
    in_namespaces = [each for each in resources if each["kind"] != "Namespace"]
    assert {each["metadata"]["namespace"] for each in in_namespaces} == set(of_kind(resources, "Namespace")) == {"ndr"}


def test_serving_never_has_fewer_servers_and_reads_pushed_files(
    resources: list[Resource], monkeypatch: pytest.MonkeyPatch
) -> None:
    (deployment,) = of_kind(resources, "Deployment").values()
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (budget,), (scaling,) = (
        of_kind(resources, kind).values() for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler")
    )
    assert 0 < budget["spec"]["minAvailable"] < scaling["spec"]["minReplicas"]
    assert "replicas" not in deployment["spec"]  # which would be set again with each apply
    spec = deployment["spec"]["template"]["spec"]
    (server,), (waiting,) = spec["containers"], spec["initContainers"]
    assert all(mount["readOnly"] for mount in server["volumeMounts"] if mount["name"] == "root")
    # The very arguments that `ndr serve` starts TF Serving with, and metrics. It does not wait for a push to an address.
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, words: started.append(words))
    where = launch.Where("0.0.0.0", 8500, 8501)
    launch._become_tf_serving(
        "tensorflow_model_server", "gs://ndr/serving", where, tf_serving.MODEL_CONFIG, lambda _: None
    )
    (words,) = started
    assert [word.replace("gs://", "/") for word in words] == [*server["command"], *server["args"][:-1]]
    assert server["args"][-1] == "--monitoring_config_file=/etc/ndr/monitoring.config"
    (settings,) = (
        each["data"] for name, each in of_kind(resources, "ConfigMap").items() if name.startswith("ndr-serving")
    )
    (monitor,) = of_kind(resources, "PodMonitor").values()
    (path,) = {each["path"] for each in monitor["spec"]["podMetricsEndpoints"]}
    assert settings["monitoring.config"] == f'prometheus_config {{ enable: true, path: "{path}" }}\n'
    assert f"/ndr/serving/{tf_serving.MODEL_CONFIG}" in waiting["command"][-1]
    # A Deployment with the largest number has no deadline, so that waiting for the first push is no failure.
    assert deployment["spec"]["progressDeadlineSeconds"] == 2**31 - 1


def test_a_server_is_ready_when_it_answers_for_every_model(resources: list[Resource]) -> None:
    spec = pods(resources)["ndr-serving"]["spec"]
    (server,) = spec["containers"]
    assert (
        server["startupProbe"]["exec"] == server["readinessProbe"]["exec"] == {"command": ["bash", "/etc/ndr/ready.sh"]}
    )
    script = DEPLOY / "base" / "serving" / "ready.sh"

    def ready(port: int) -> tuple[int, str]:
        done = subprocess.run(["bash", script], env={"PORT": str(port)}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    with answering(dict.fromkeys(MODELS, 200)) as port:
        assert ready(port) == (0, "")
    for missing in MODELS:
        with answering({model: 404 if model == missing else 200 for model in MODELS}) as port:
            assert ready(port) == (1, f"{missing}: 404\n")
    with socket.socket() as taken:  # nobody listens
        taken.bind(("127.0.0.1", 0))
        assert ready(taken.getsockname()[1])[0] == 1
        taken.listen()  # nobody answers
        assert ready(taken.getsockname()[1]) == (1, "query_tower: no answer\n")


@contextmanager
def answering(statuses: Mapping[str, int]) -> Iterator[int]:
    """A server of TF Serving's paths for models, with these answers; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = re.fullmatch(r"/v1/models/(\w+)/metadata", self.path)
            self.send_response(statuses[model[1]] if model else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_every_day_the_pipeline_that_was_compiled_is_run_by_one_job_at_a_time(
    resources: list[Resource], tmp_path: Path
) -> None:
    daily = of_kind(resources, "CronJob")["ndr-daily"]["spec"]
    assert (daily["concurrencyPolicy"], daily["timeZone"]) == ("Forbid", "Etc/UTC")
    (container,) = pods(resources)["ndr-daily"]["spec"]["containers"]
    program, *words = container["command"]
    variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    (token,) = [each for each in container["volumeMounts"] if each["name"] == "token"]
    assert Path(variables["NDR_KUBEFLOW_TOKEN_FILE"]).is_relative_to(token["mountPath"])
    assert pods(resources)["ndr-daily"]["metadata"]["labels"]["ndr/metadata-client"] == "true"
    # A server that cannot be reached is tried again, a day that failed is not.
    (values,) = (
        rule["onExitCodes"]["values"]
        for rule in daily["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    )
    assert values == [Status.USER_FAULT, 2]
    # By the command line that the image has, up to the package, which is not there.
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *(word.replace("/pipeline/", f"{tmp_path}/") for word in words)],
        env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "pipeline.yaml" in done.stderr) == (1, True), done.stderr


def test_the_configuration_of_the_docs_matches_the_deployment(resources: list[Resource]) -> None:
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
    assert "MARIADB_RANDOM_ROOT_PASSWORD" not in environment  # the image writes it into the log
    assert (environment["MARIADB_DATABASE"], environment["MARIADB_USER"]) == (metadata.database, metadata.user)
    assert metadata.port == server["ports"][0]["containerPort"]
    # The doctor looks at the same.
    (doctor,) = pods(resources)["ndr-doctor"]["spec"]["containers"]
    given_to_doctor = dict(word.removeprefix("--set=").split("=", 1) for word in doctor["args"])
    assert given_to_doctor["root"] == given["root"] == kubeflow.volumes[0].at == doctor["volumeMounts"][0]["mountPath"]
    assert ServerSettings(**yaml.safe_load(given_to_doctor["metadata"])) == metadata
    assert doctor["image"].partition("@")[0] == kubeflow.image.partition(":")[0]


def test_no_secret_is_kept_in_git() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", f"deploy/{EXAMPLE}/metadata.env"], cwd=PROJECT, capture_output=True, check=False
    )
    assert ignored.returncode == 0
