"""The contract of the compiled pipeline: what Kubeflow Pipelines 2 is given."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config as configuration
from pipeline import day_run, digests, run_node
from pipeline.kubeflow import compiler
from schemas.errors import UserError

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
KUBEFLOW = """kubeflow={
  image: registry.example/ndr:1,
  env: {TF_CPP_MIN_LOG_LEVEL: "1"},
  volumes: [{claim: ndr-root, at: /ndr}],
  secrets: [{name: ndr-metadata, env: {NDR_PASSWORD: password}}, {name: ndr-ca, at: /run/ca}],
  retries: {count: 5, wait_seconds: 10, factor: 3, longest_wait_seconds: 300},
  machine: {memory: 2Gi, timeout_minutes: 30},
  steps: {Trainer: {cpu: "8", accelerators: {resource: nvidia.com/gpu}, node_selector: {pool: gpu}, timeout_minutes: 600,
                    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]}}}"""
METADATA = "metadata={store: mysql, host: db, user: ndr, password: {env: NDR_PASSWORD}}"
SETTINGS = [KUBEFLOW, METADATA, "root=/ndr"]


def compiled(*settings: str) -> str:
    return compiler.compile_pipeline(configuration.load(SHOP, settings), SHOP, settings)


@pytest.fixture(scope="module")
def text() -> str:
    return compiled(*SETTINGS)


@pytest.fixture(scope="module")
def pipeline(text: str) -> dict[str, Any]:
    """The first of two documents: the pipeline, without what is Kubernetes's."""
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def kubernetes(text: str) -> dict[str, Any]:
    """By step, what Kubernetes is told of it."""
    _, platform = yaml.safe_load_all(text)
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def container(pipeline: dict[str, Any], step: str) -> dict[str, Any]:
    return pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]


def test_the_schema_is_2_1_0_and_every_step_is_a_container(pipeline: dict[str, Any]) -> None:
    assert pipeline["schemaVersion"] == "2.1.0"
    executors = pipeline["deploymentSpec"]["executors"]
    assert all(executor.keys() == {"container"} for executor in executors.values())
    assert executors.keys() == {f"exec-{name}" for name in pipeline["root"]["dag"]["tasks"]}


def test_the_steps_and_what_they_come_behind_are_tfxs(pipeline: dict[str, Any]) -> None:
    config = configuration.load(SHOP, SETTINGS)
    nodes = [n.pipeline_node for n in day_run.compile_pipeline(config, compiler.ANY_DAY).nodes]
    tasks = {task["taskInfo"]["name"]: task for task in pipeline["root"]["dag"]["tasks"].values()}
    names = {name: task["taskInfo"]["name"] for name, task in pipeline["root"]["dag"]["tasks"].items()}
    assert tasks.keys() == {run_node.BEGIN, *(node.node_info.id for node in nodes), run_node.END}
    behind = {name: {names[each] for each in task.get("dependentTasks", [])} for name, task in tasks.items()}
    for node in nodes:
        assert behind[node.node_info.id] == set(node.upstream_nodes or [run_node.BEGIN])
    assert (behind[run_node.BEGIN], behind[run_node.END]) == (set(), tasks.keys() - {run_node.BEGIN, run_node.END})
    assert {"Transform", "Catalogue", "Analyzer"} <= behind["Trainer"]


def test_every_parameter_of_a_run_is_an_input_of_the_root_and_its_id_is_kubeflows(pipeline: dict[str, Any]) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters.keys() == {"date", "days_back", "settings"}
    assert "defaultValue" not in parameters["date"] and not parameters["date"].get("isOptional")
    assert parameters["settings"]["defaultValue"] == SETTINGS
    assert parameters["days_back"]["defaultValue"] == 0
    for task in pipeline["root"]["dag"]["tasks"].values():
        assert task["inputs"]["parameters"] == {
            "date": {"componentInputParameter": "date"},
            "days_back": {"componentInputParameter": "days_back"},
            "settings": {"componentInputParameter": "settings"},
            "run_id": {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}},
        }


def test_no_span_and_no_other_placeholder_is_left(text: str) -> None:
    assert not re.search(r"\{(SPAN|VERSION|YYYY|MM|DD)\b", text)
    inputs = ("date", "days_back", "run_id", "settings")
    expected = {"{{$.pipeline_job_uuid}}", *(f"{{{{$.inputs.parameters[''{name}'']}}}}" for name in inputs)}
    assert set(re.findall(r"\{\{.*?\}\}", text)) == expected


def test_a_step_gets_its_own_machine_over_that_of_all(pipeline: dict[str, Any], kubernetes: dict[str, Any]) -> None:
    trainer, other = container(pipeline, "trainer"), container(pipeline, "transform")
    assert trainer["image"] == other["image"] == "registry.example/ndr:1"
    assert trainer["resources"]["resourceCpuRequest"] == trainer["resources"]["resourceCpuLimit"] == "8"
    assert trainer["resources"]["resourceMemoryRequest"] == trainer["resources"]["resourceMemoryLimit"] == "2Gi"
    assert trainer["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert (other["resources"]["resourceCpuLimit"], "accelerator" in other["resources"]) == ("1", False)
    assert all(
        "resourceMemoryLimit" in each["container"]["resources"]
        for each in pipeline["deploymentSpec"]["executors"].values()
    )
    on_gpu, elsewhere = kubernetes["exec-trainer"], kubernetes["exec-transform"]
    assert on_gpu["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert on_gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (on_gpu["activeDeadlineSeconds"], elsewhere["activeDeadlineSeconds"]) == ("36000", "1800")
    assert not elsewhere.keys() & {"nodeSelector", "tolerations"}


def test_every_step_has_the_volumes_secrets_environment_and_other_tries(
    pipeline: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    assert kubernetes.keys() == pipeline["deploymentSpec"]["executors"].keys()
    for each in kubernetes.values():
        (mount,) = each["pvcMount"]
        assert (mount["constant"], mount["mountPath"]) == ("ndr-root", "/ndr")
        (secret,) = each["secretAsEnv"]
        assert secret["keyToEnv"] == [{"envVar": "NDR_PASSWORD", "secretKey": "password"}]
        assert [(volume["secretName"], volume["mountPath"]) for volume in each["secretAsVolume"]] == [
            ("ndr-ca", "/run/ca")
        ]
    for executor in pipeline["deploymentSpec"]["executors"].values():
        assert executor["container"]["env"] == [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}]
    for task in pipeline["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"].get("enableCache")
        assert task["retryPolicy"] == {
            "maxRetryCount": 5, "backoffDuration": "10s", "backoffFactor": 3.0, "backoffMaxDuration": "300s",
        }  # fmt: skip


def test_the_same_configuration_gives_the_same_bytes(text: str) -> None:
    assert compiled(*SETTINGS) == text


def test_the_steps_check_the_code_the_configuration_and_the_dataset(pipeline: dict[str, Any], tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return digests.definition(path, configuration.load(path, SETTINGS))

    words = container(pipeline, "trainer")["args"]
    assert words[words.index("--definition") + 1] == digest(SHOP)
    for file in SHOP.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = [digest(tmp_path / SHOP.name)]
    for name in (SHOP.name, "features.yaml"):
        with (tmp_path / name).open("a") as file:
            file.write("# another\n")
        found.append(digest(tmp_path / SHOP.name))
    assert found[0] == digest(SHOP) and len(set(found)) == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((), "kubeflow: is missing"),
        (
            ("kubeflow={image: x, steps: {Trainr: {}}}",),
            "expected steps of the pipeline, received Trainr. It has Begin, Baseline,",
        ),
    ],
)
def test_what_cannot_be_compiled_is_named(settings: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compiled(*settings)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("kubeflow.machine.memory=4GB", "kubeflow.machine.memory: string should match"),
        ("kubeflow.machine.cpu=two", "kubeflow.machine.cpu: string should match"),
        ("kubeflow.secrets=[{name: s}]", "expected one of env, a key for each variable, and at, a folder"),
        ("kubeflow.volumes=[{claim: c, at: here}]", "string should match pattern '^/', received 'here'"),
    ],
)
def test_a_setting_that_kubernetes_would_refuse_is_refused_before(setting: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        configuration.load(SHOP, ["kubeflow.image=x", setting])
    assert sentence in str(refused.value)
