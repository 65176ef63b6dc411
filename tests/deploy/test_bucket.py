"""The component for a push folder in an object store."""

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from schemas.declaration import OBJECT_STORE
from tests.deploy.rendered import EXAMPLE, KUBERNETES, Resource, copy, of_kind, pods, render, validate


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """As the component's first lines say: with their generator in the overlay."""
    deploy = copy(tmp_path_factory.mktemp("copy") / "deploy", "bucket", "autoscaling", "monitoring")
    said = (deploy / "components" / "bucket" / "kustomization.yaml").read_text().splitlines()
    overlay = deploy / EXAMPLE / "kustomization.yaml"
    with overlay.open("a") as file:
        file.writelines(f"{line.removeprefix('#     ')}\n" for line in said if line.startswith("#     "))
    return render(overlay.parent)


@pytest.mark.parametrize("version", KUBERNETES)
def test_everything_is_as_kubernetes_declares_it(resources: list[Resource], version: str) -> None:
    for resource in resources:
        validate(resource, version)


def test_servers_read_what_the_container_beside_them_keeps(resources: list[Resource]) -> None:
    pod = pods(resources)["ndr-serving"]["spec"]
    mirror, waiting = pod["initContainers"]
    assert (mirror["restartPolicy"], mirror["image"].partition("@")[0]) == ("Always", "registry.example/ndr")
    assert next(each for each in pod["volumes"] if each["name"] == "root") == {"name": "root", "emptyDir": {}}
    server = pod["containers"][0]
    of_server, of_mirror = (
        {each["name"]: each for each in container["volumeMounts"]} for container in (server, mirror)
    )
    assert of_server["root"] == {"name": "root", "mountPath": "/ndr", "readOnly": True}
    assert of_mirror["root"] == {"name": "root", "mountPath": "/ndr"}
    _, command, source, target, option, pause = mirror["command"]
    assert (command, source, option) == ("mirror", "$(PUSH_FOLDER)", "--every")
    assert f"--model_config_file={target}/models.config" in server["args"]
    assert f"{target}/models.config" in waiting["command"][-1]
    (settings,) = (each["data"] for name, each in of_kind(resources, "ConfigMap").items() if "ndr-bucket" in name)
    assert settings["AWS_ENDPOINT_URL_S3"].startswith("http")
    assert OBJECT_STORE.fullmatch(settings["PUSH_FOLDER"])
    assert mirror["envFrom"][0]["configMapRef"]["name"] in of_kind(resources, "ConfigMap")
    said = CliRunner().invoke(app, ["mirror", "/same", "/same", option, pause])
    assert said.exit_code == 1 and "expected another folder" in said.output  # the command takes these


def test_servers_are_let_out_to_the_store_and_to_dns(resources: list[Resource]) -> None:
    (policy,) = (each["spec"] for name, each in of_kind(resources, "NetworkPolicy").items() if name.endswith("-bucket"))
    labels = pods(resources)["ndr-serving"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["egress"]
    assert [port["port"] for port in rule["ports"]] == [53, 53, 443, 9000]
