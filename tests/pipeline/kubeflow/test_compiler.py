"""The contract of the compiled pipeline: what Kubeflow Pipelines 2 is given."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config as configuration
from pipeline import day_run, digests, run_node
from pipeline.kubeflow import compiler
from schemas.errors import UserError
from tests import kubeflow_judge

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
KUBEFLOW = """kubeflow={
  image: registry.example/ndr:1,
  env: {TF_CPP_MIN_LOG_LEVEL: "1"},
  volumes: [{claim: ndr-root, at: /ndr}],
  secrets: [{name: ndr-metadata, env: {NDR_PASSWORD: password}}, {name: ndr-ca, at: /run/ca}],
  image_pull_policy: Always, image_pull_secrets: [registry], labels: {team: shop}, annotations: {note: daily},
  empty_directories: [{name: shm, at: /dev/shm, medium: Memory, size: 1Gi}],
  config_maps: [{name: ndr-proxy, env: {HTTPS_PROXY: proxy}}, {name: ndr-roots, at: /run/roots}],
  run_as: {user: 10001, group: 10001},
  retries: {count: 5, wait_seconds: 10, factor: 2, longest_wait_seconds: 160},
  machine: {memory: 2Gi, timeout_minutes: 30},
  steps: {Trainer: {cpu: "8", accelerators: {resource: nvidia.com/gpu}, node_selector: {pool: gpu}, timeout_minutes: 600,
                    node_affinity: [{key: zone, values: [a, b]}, {key: disk, operator: Exists, weight: 10}],
                    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]}}}"""
METADATA = "metadata={store: mysql, host: db, user: ndr, password: {env: NDR_PASSWORD}}"
SETTINGS = [KUBEFLOW, METADATA, "root=/ndr"]


def compiled(*settings: str) -> compiler.Compiled:
    return compiler.compile_pipeline(configuration.load(SHOP, settings), SHOP, settings)


@pytest.fixture(scope="module")
def package() -> compiler.Compiled:
    return compiled(*SETTINGS)


@pytest.fixture(scope="module")
def text(package: compiler.Compiled) -> str:
    return package.text


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


def steps_of(pipeline: dict[str, Any], task: str) -> list[str]:
    """The steps that a task runs, in their order."""
    words = container(pipeline, task)["args"]
    return [value for word, value in pairwise(words) if word == "--node"]


def test_the_schema_is_2_1_0_and_every_task_is_a_container(pipeline: dict[str, Any]) -> None:
    assert pipeline["schemaVersion"] == "2.1.0"
    executors = pipeline["deploymentSpec"]["executors"]
    assert all(executor.keys() == {"container"} for executor in executors.values())
    assert executors.keys() == {f"exec-{name}" for name in pipeline["root"]["dag"]["tasks"]}


def test_every_step_runs_once_and_behind_those_that_tfx_has_it_behind(pipeline: dict[str, Any]) -> None:
    config = configuration.load(SHOP, SETTINGS)
    nodes = [n.pipeline_node for n in day_run.compile_pipeline(config, compiler.ANY_DAY).nodes]
    tasks = pipeline["root"]["dag"]["tasks"]
    pods = {name: steps_of(pipeline, name) for name in tasks}
    placed = sorted(step for steps in pods.values() for step in steps)
    expected = sorted([run_node.BEGIN, *(node.node_info.id for node in nodes), run_node.END])
    assert placed == expected, "each node of create_pipeline, Begin and End must run in exactly one pod"
    pod_of = {step: name for name, steps in pods.items() for step in steps}

    def all_behind(name: str) -> set[str]:
        direct = set(tasks[name].get("dependentTasks", []))
        return direct.union(*map(all_behind, direct))

    for node in nodes:
        own = node.node_info.id
        for needed in node.upstream_nodes or [run_node.BEGIN]:
            if pod_of[needed] == pod_of[own]:
                assert pods[pod_of[own]].index(needed) < pods[pod_of[own]].index(own)
            else:
                assert pod_of[needed] in all_behind(pod_of[own]), f"{own} does not wait for {needed}"
    assert all_behind(pod_of[run_node.END]) == pods.keys() - {pod_of[run_node.END]}
    assert not all_behind("begin")


def test_steps_that_read_no_examples_run_with_the_step_that_needs_them(
    pipeline: dict[str, Any], package: compiler.Compiled
) -> None:
    pods = {name: steps_of(pipeline, name) for name in pipeline["root"]["dag"]["tasks"]}
    assert "WarmStart" in pods["interactions"] and ["Baseline"] not in pods.values()
    assert {"InteractionSchema", "InteractionValidator", "InteractionDrift", "DayBefore"} < set(pods["analyzer"])
    # The Trainer has a machine of its own; the Evaluator follows the Ranker alone, and has the Ranker's.
    assert pods["trainer"] == ["Trainer"] and pods["ranker"][-2:] == ["Ranker", "RetrievalEvaluator"]
    assert pods["end"] == ["Pusher", "End"]
    # A driver for the whole; for each task a driver and a pod: half of what it was when each step had its own.
    assert package.steps == sum(map(len, pods.values()))
    assert package.pods == 1 + 2 * len(pods) <= (1 + 2 * package.steps) / 2


def test_the_size_of_the_workflow_is_estimated_to_a_tenth() -> None:
    estimate = compiler.Compiled(kubeflow_judge.compiled(), 0, 0, 0).workflow_bytes
    assert estimate == pytest.approx(kubeflow_judge.answer("2.17.0")["workflow_bytes"], rel=0.1)


def test_where_the_day_is_done_five_pods_at_most_are_started(
    pipeline: dict[str, Any], package: compiler.Compiled
) -> None:
    tasks = pipeline["root"]["dag"]["tasks"]
    behind_begin = {name for name, task in tasks.items() if task.get("dependentTasks") == ["begin"]}
    asking = {name for name, task in tasks.items() if "triggerPolicy" in task}
    assert behind_begin == asking == {"catalogue", "users"}
    for task in asking:
        assert tasks[task]["triggerPolicy"] == {"condition": "inputs.parameter_values['date'] != ''"}
    # The root's driver; Begin and its driver; the drivers that evaluate the two conditions. All others come behind them.
    assert package.pods_when_done == 1 + 2 + 2 <= 5


def test_every_parameter_of_a_run_is_an_input_of_the_root_and_begin_hands_on_the_day(pipeline: dict[str, Any]) -> None:
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    defaults = {name: found["defaultValue"] for name, found in parameters.items()}
    assert defaults == {"date": "", "days_back": 1, "make_up_days": 7, "settings": SETTINGS}
    tasks = dict(pipeline["root"]["dag"]["tasks"])
    run_id = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert tasks.pop("begin")["inputs"]["parameters"] == {
        **{name: {"componentInputParameter": name} for name in defaults}, "run_id": run_id
    }  # fmt: skip
    # Kubeflow 2.5.0 finds an output under the name that its task is displayed by alone.
    assert pipeline["root"]["dag"]["tasks"]["begin"]["taskInfo"]["name"] == "begin"
    for task in tasks.values():
        assert task["inputs"]["parameters"] == {
            "date": {"taskOutputParameter": {"producerTask": "begin", "outputParameterKey": "day"}},
            "settings": {"componentInputParameter": "settings"},
            "run_id": run_id,
        }


def test_no_span_and_no_other_placeholder_is_left(text: str) -> None:
    assert not re.search(r"\{(SPAN|VERSION|YYYY|MM|DD)\b", text)
    inputs = ("date", "days_back", "make_up_days", "run_id", "settings")
    expected = {
        "{{$.pipeline_job_uuid}}",
        "{{$.outputs.parameters[''day''].output_file}}",
        *(f"{{{{$.inputs.parameters[''{name}'']}}}}" for name in inputs),
    }
    assert set(re.findall(r"\{\{.*?\}\}", text)) == expected


def test_a_step_gets_its_own_machine_over_that_of_all(pipeline: dict[str, Any], kubernetes: dict[str, Any]) -> None:
    trainer, other = container(pipeline, "trainer"), container(pipeline, "indexer")
    assert trainer["image"] == other["image"] == "registry.example/ndr:1"
    assert trainer["resources"]["resourceCpuRequest"] == trainer["resources"]["resourceCpuLimit"] == "8"
    assert trainer["resources"]["resourceMemoryRequest"] == trainer["resources"]["resourceMemoryLimit"] == "2Gi"
    assert trainer["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert (other["resources"]["resourceCpuLimit"], "accelerator" in other["resources"]) == ("1", False)
    assert all(
        "resourceMemoryLimit" in each["container"]["resources"]
        for each in pipeline["deploymentSpec"]["executors"].values()
    )
    on_gpu, elsewhere = kubernetes["exec-trainer"], kubernetes["exec-indexer"]
    assert on_gpu["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert on_gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert on_gpu["nodeAffinity"] == [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
        {"matchExpressions": [{"key": "disk", "operator": "Exists"}], "weight": 10},
    ]
    assert (on_gpu["activeDeadlineSeconds"], elsewhere["activeDeadlineSeconds"]) == ("36000", "1800")
    assert not elsewhere.keys() & {"nodeSelector", "nodeAffinity", "tolerations"}
    # Interactions and InteractionStatistics, 30 minutes each; WarmStart reads no examples.
    assert kubernetes["exec-interactions"]["activeDeadlineSeconds"] == "3600"


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
        assert each["imagePullPolicy"] == "Always" and each["imagePullSecret"][0]["secretName"] == "registry"
        assert each["podMetadata"] == {"labels": {"team": "shop"}, "annotations": {"note": "daily"}}
        assert each["emptyDirMounts"] == [
            {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "1Gi"}
        ]
        assert each["configMapAsEnv"][0]["keyToEnv"] == [{"envVar": "HTTPS_PROXY", "configMapKey": "proxy"}]
        assert each["configMapAsVolume"][0]["mountPath"] == "/run/roots"
        assert each["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
    for executor in pipeline["deploymentSpec"]["executors"].values():
        assert executor["container"]["env"] == [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}]
    for task in pipeline["root"]["dag"]["tasks"].values():
        assert not task["cachingOptions"].get("enableCache")


def test_retries_grow_by_a_whole_factor_and_outlast_every_step(
    pipeline: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    longest = max(int(each["activeDeadlineSeconds"]) for each in kubernetes.values())
    for task in pipeline["root"]["dag"]["tasks"].values():
        policy = dict(task["retryPolicy"])
        # Argo counts it from the first start, and ends what runs then: six attempts and their waits have to fit.
        assert int(policy.pop("backoffMaxDuration").removesuffix("s")) > 6 * longest + 5 * 160
        assert policy == {"maxRetryCount": 5, "backoffDuration": "10s", "backoffFactor": 2.0}


def test_the_same_configuration_gives_the_same_bytes(text: str) -> None:
    assert compiled(*SETTINGS).text == text


def test_the_steps_check_the_code_the_configuration_and_the_dataset(pipeline: dict[str, Any], tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return digests.definition(path, configuration.load(path, SETTINGS))

    words = container(pipeline, "trainer")["args"]
    assert words[words.index("--definition") + 1] == digest(SHOP)
    for file in SHOP.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = [digest(tmp_path / SHOP.name)]
    for name in (SHOP.name, "features.yaml"):
        with (tmp_path / name).open("a") as changed:
            changed.write("# another\n")
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
def test_invalid_kubeflow_settings_are_named(settings: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        compiled(*settings)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("kubeflow.machine.memory=4GB", "kubeflow.machine.memory: string should match"),
        ("kubeflow.machine.cpu=two", "kubeflow.machine.cpu: string should match"),
        ("kubeflow.secrets=[{name: s}]", "expected one of env, a key for each variable, and at, a folder"),
        (
            "kubeflow.retries.factor=1.5",
            "factor: input should be a valid integer, got a number with a fractional part",
        ),
        ("kubeflow.retries.factor=0", "kubeflow.retries.factor: "),
        ("kubeflow.retries.count=6", "make the last of 6 960 s long"),  # 30 s, doubled five times
        ("kubeflow.run_as={user: 0, group: 0}", "kubeflow.run_as.user: "),
        ("kubeflow.volumes=[{claim: c, at: here}]", "string should match pattern '^/', received 'here'"),
    ],
)
def test_a_setting_that_kubernetes_would_refuse_is_refused_before(setting: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        configuration.load(SHOP, ["kubeflow.image=x", setting])
    assert sentence in str(refused.value)


def test_a_search_for_settings_is_a_step_of_a_pipeline_of_its_own_on_the_trainers_machine() -> None:
    made = compiler.compile_tuning(configuration.load(SHOP, SETTINGS), SHOP, ["root=/ndr"], "2h", 7200.0)
    pipeline, platform = yaml.safe_load_all(made.text)
    (task,) = pipeline["root"]["dag"]["tasks"].values()
    assert task["inputs"]["parameters"] == {"date": {"componentInputParameter": "date"}}
    (executor,) = pipeline["deploymentSpec"]["executors"].values()
    container = executor["container"]
    date = "{{$.inputs.parameters['date']}}"
    assert [*container["command"], *container["args"]] == [
        "ndr", "tune", "--config", str(SHOP), "--date", date, "--for", "2h", "--set", "root=/ndr",
    ]  # fmt: skip
    assert container["resources"]["resourceCpuLimit"] == "8"
    (kubernetes,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert kubernetes["pvcMount"][0]["mountPath"] == "/ndr"
    assert task["retryPolicy"]["maxRetryCount"] == 5


def test_a_search_that_kubeflow_would_end_is_refused() -> None:
    with pytest.raises(UserError, match="expected less than the 600 minutes after which Kubeflow ends the Trainer"):
        compiler.compile_tuning(configuration.load(SHOP, SETTINGS), SHOP, [], "10h", 36_000.0)
