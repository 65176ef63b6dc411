"""Compiles the TFX pipeline to a pipeline of Kubeflow Pipelines 2: containers that run its nodes in TFX's order.

TFX's own representation is not part of it: each step compiles that from the day and the configuration in its image, with the
code that `ndr run` uses. The Kubeflow pipeline holds a digest of both, which the step checks.

If a run names no day, `Begin` chooses one and passes it to all other steps. If there is nothing to do it passes nothing,
and no other step starts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from kfp import compiler, dsl, kubernetes
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import standard_artifacts

from pipeline import day_run, digests
from pipeline.config import Config
from pipeline.day_inputs import TRAINER
from pipeline.kubeflow.pods import Pod, share_pods
from pipeline.kubeflow.settings import KubeflowSettings, Machine
from pipeline.monitoring.missed import DAYS_BACK, MAKE_UP_DAYS
from pipeline.refresh import run as refresh_run
from pipeline.refresh.refreshing import Base
from pipeline.run_node import BEGIN, END
from schemas.errors import UserError

ANY_DAY = date(2000, 1, 1)  # the steps do not depend on it
ANY_VERSION = Base(20000101001, ANY_DAY, "a run", "a run", is_refreshed=False)
# Kubeflow's `backoffMaxDuration` is not the longest wait: Argo counts it from the start of the first attempt, then retries
# no more and ends a running one. So it must outlast any step; left out, it is 0 from Kubeflow Pipelines 2.14 on.
NO_END_OF_RETRIES = 365 * 24 * 3600  # seconds
# In Kubeflow's expression language: Begin passed a day on.
IS_TO_DO = "inputs.parameter_values['date'] != ''"


@dataclass(frozen=True)
class Compiled:
    """A pipeline for Kubeflow.

    Attributes:
        text: its YAML.
        steps: the number of steps.
        pods: the number of pods for a day, including Kubeflow's drivers.
        pods_when_done: the number of pods for a day that is done already.
    """

    text: str
    steps: int
    pods: int
    pods_when_done: int

    @property
    def workflow_bytes(self) -> int:
        """An estimate of the size of the Argo workflow that Kubeflow makes of it; etcd refuses objects above 1.5 MB.

        Fitted to the output of the compiler of Kubeflow Pipelines 2.17.0 for pipelines of 8, 10 and 16 tasks: a constant, a part
        for each task, and the specifications, quoted as JSON.
        """
        documents = list(yaml.safe_load_all(self.text))
        quoted = sum(len(json.dumps(document, separators=(",", ":"))) for document in documents)
        return round(9200 + 1480 * len(documents[0]["root"]["dag"]["tasks"]) + 1.444 * quoted)


def compile_pipeline(config: Config, path: Path, settings: Sequence[str], is_refresh: bool = False) -> Compiled:
    """Compile the pipeline of a day or of a refresh; the same configuration and code give the same YAML.

    Args:
        config: the configuration.
        path: its file, as a path in the image.
        settings: settings over the file's values; a run without settings of its own gets these.
        is_refresh: which of the two.

    Raises:
        UserError: there is no `kubeflow` section, or it names an unknown step.
    """
    cluster = _section(config, path)
    days, refresh = _pipelines(config)
    steps = [*_upstream(days), *(step for step in _upstream(refresh) if step not in _upstream(days))]
    if unknown := sorted(cluster.steps.keys() - set(steps)):
        raise UserError(
            f"{path}: kubeflow.steps: expected steps of the pipeline, received {', '.join(unknown)}. "
            f"It has {', '.join(steps)}."
        )
    upstream, begin, pods = _shared(refresh if is_refresh else days, cluster)
    fixed = ["--config", str(path), "--definition", digests.definition(path, config)]
    fixed += ["--refresh"] if is_refresh else []
    overrides = list(settings)
    run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER

    def chain(first: Any, settings: Any) -> None:
        """Add the tasks behind Begin's."""
        _configure(first, cluster, begin)
        tasks: dict[str, Any] = {BEGIN: first}
        for pod in pods:
            task = _steps(pod, cluster.image, fixed)(date=first.outputs["day"], settings=settings, run_id=run_id)
            tasks[pod.reading[0]] = task.after(*(tasks[step] for step in pod.behind))
            _configure(task, cluster, pod)

    @dsl.pipeline(
        name=_kebab(config.name), description=f"Trains, judges and ships the model of {config.name} for a day."
    )
    def daily(
        date: str = "",
        days_back: int = DAYS_BACK,
        make_up_days: int = MAKE_UP_DAYS,
        settings: list[str] = overrides,
    ) -> None:
        first = _begin(cluster.image, fixed)(
            date=date, days_back=days_back, make_up_days=make_up_days, settings=settings, run_id=run_id
        )
        chain(first, settings)

    @dsl.pipeline(
        name=f"{_kebab(config.name)}-refresh",
        description=f"Gives the live version of {config.name} the newest catalogue, without training.",
    )
    def refreshing(date: str = "", settings: list[str] = overrides) -> None:
        chain(_begin_refresh(cluster.image, fixed)(date=date, settings=settings, run_id=run_id), settings)

    behind_begin = [_kebab(pod.reading[0]) for pod in pods if BEGIN in pod.behind]
    text = _written(refreshing if is_refresh else daily, behind_begin)
    # A driver for the whole, and for each task a driver and a pod; the driver of a skipped task only finds out that it is skipped.
    return Compiled(text, len(upstream), 1 + 2 * (1 + len(pods)), 1 + 2 + len(behind_begin))


def compile_tuning(config: Config, path: Path, settings: Sequence[str], duration: str, seconds: float) -> Compiled:
    """Compile a pipeline of one step that searches for better settings on a day's data, on the Trainer's machine.

    Args:
        config: the configuration.
        path: its file, as a path in the image.
        settings: settings over the file's values; a run cannot give others.
        duration: the time for all trials, as for `ndr tune --for`.
        seconds: the same as a number.

    Raises:
        UserError: there is no `kubeflow` section, or the step would time out before the trials end.
    """
    cluster = _section(config, path)
    minutes = cluster.machine_of(TRAINER).timeout_minutes
    if seconds >= 60 * minutes:
        raise UserError(
            f"--tune: expected less than the {minutes} minutes after which Kubeflow ends the Trainer's step, received {duration}. "
            f"Raise kubeflow.steps.{TRAINER}.timeout_minutes, or search for a shorter time: a later search resumes this one."
        )
    options = [word for setting in settings for word in ("--set", setting)]

    def tune(date: str) -> dsl.ContainerSpec:
        arguments = ["tune", "--config", str(path), "--date", date, "--for", duration, *options]
        return dsl.ContainerSpec(image=cluster.image, command=["ndr"], args=arguments)

    @dsl.pipeline(name=f"{_kebab(config.name)}-tune", description=f"Searches for better settings of {config.name}.")
    def searching(date: str) -> None:
        task = dsl.container_component(tune)(date=date)
        _configure(task, cluster, Pod((TRAINER,), (TRAINER,), ()))
        task.set_display_name("Tune")

    text = _written(searching, ())
    return Compiled(text, 1, 3, 3)


def _pipelines(config: Config) -> tuple[pipeline_pb2.Pipeline, pipeline_pb2.Pipeline]:
    """Compile the pipelines of any day and of any refresh; the steps do not depend on which."""
    return day_run.compile_pipeline(config, ANY_DAY), refresh_run.compile_pipeline(config, ANY_VERSION, ANY_DAY)


def _shared(
    pipeline: pipeline_pb2.Pipeline, cluster: KubeflowSettings
) -> tuple[Mapping[str, Sequence[str]], Pod, list[Pod]]:
    """By step, those that it comes behind; Begin's pod; and the others."""
    upstream = _upstream(pipeline)
    reading = {BEGIN, END, *(cluster.steps.keys() & upstream.keys()), *_reading_examples(pipeline)}
    begin, *pods = share_pods(upstream, reading, {BEGIN}, cluster.machine_of)
    return upstream, begin, pods


def _section(config: Config, path: Path) -> KubeflowSettings:
    if config.kubeflow is None:
        raise UserError(f"{path}: kubeflow: is missing. It must at least name the image of the steps: {{image: ...}}.")
    return config.kubeflow


def _written(pipeline: Any, behind_begin: Sequence[str]) -> str:
    """Write a pipeline's YAML, with a condition on the tasks that need something to do."""
    for name, task in pipeline.pipeline_spec.root.dag.tasks.items():
        task.retry_policy.backoff_max_duration.seconds = NO_END_OF_RETRIES
        if name in behind_begin:  # tasks after a skipped one are skipped, too
            task.trigger_policy.condition = IS_TO_DO
    with TemporaryDirectory() as folder:
        target = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(target))
        return target.read_text(encoding="utf-8")


def _upstream(pipeline: pipeline_pb2.Pipeline) -> Mapping[str, Sequence[str]]:
    """Map each step to the steps before it, in an order in which they can run."""
    nodes = [node.pipeline_node for node in pipeline.nodes]
    names = [node.node_info.id for node in nodes]
    steps = {node.node_info.id: sorted(node.upstream_nodes) or [BEGIN] for node in nodes}
    return {BEGIN: [], **steps, END: names}


def _reading_examples(pipeline: pipeline_pb2.Pipeline) -> set[str]:
    """Return the nodes that read or write examples, whose work grows with the data."""
    nodes = [node.pipeline_node for node in pipeline.nodes]
    kinds = {
        node.node_info.id: {
            *(channel.artifact_query.type.name for spec in node.inputs.inputs.values() for channel in spec.channels),
            *(output.artifact_spec.type.name for output in node.outputs.outputs.values()),
        }
        for node in nodes
    }
    return {name for name, types in kinds.items() if standard_artifacts.Examples.TYPE_NAME in types}


def _begin(image: str, fixed: Sequence[str]) -> Any:
    def begin(
        date: str,
        days_back: int,
        make_up_days: int,
        settings: list[str],
        run_id: str,
        day: dsl.OutputPath(str),  # type: ignore[valid-type]
    ) -> dsl.ContainerSpec:
        choice = ["--date", date, "--days-back", days_back, "--make-up-days", make_up_days, "--day-file", day]
        return _container(image, [BEGIN], [*choice, "--run-id", run_id, "--settings", settings, *fixed])

    return dsl.container_component(begin)


def _begin_refresh(image: str, fixed: Sequence[str]) -> Any:
    def begin(
        date: str,
        settings: list[str],
        run_id: str,
        day: dsl.OutputPath(str),  # type: ignore[valid-type]
    ) -> dsl.ContainerSpec:
        choice = ["--date", date, "--day-file", day]
        return _container(image, [BEGIN], [*choice, "--run-id", run_id, "--settings", settings, *fixed])

    return dsl.container_component(begin)


def _steps(pod: Pod, image: str, fixed: Sequence[str]) -> Any:
    def steps(date: str, settings: list[str], run_id: str) -> dsl.ContainerSpec:
        return _container(image, pod.steps, ["--date", date, "--run-id", run_id, "--settings", settings, *fixed])

    steps.__name__ = _kebab(pod.reading[0])
    return dsl.container_component(steps)


def _container(image: str, steps: Sequence[str], arguments: Sequence[Any]) -> dsl.ContainerSpec:
    nodes = [word for step in steps for word in ("--node", step)]
    return dsl.ContainerSpec(image=image, command=["python", "-m", "pipeline.run_node"], args=[*nodes, *arguments])


def _kebab(name: str) -> str:
    """Convert a name to Kubernetes form: `InteractionDrift` becomes interaction-drift."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _configure(task: Any, cluster: KubeflowSettings, pod: Pod) -> None:
    """Set a pod's Kubernetes options."""
    if pod.reading != (BEGIN,):  # Kubeflow 2.5 looks up a task's outputs by its display name
        task.set_display_name(", ".join(pod.steps if pod.reading == (END,) else pod.reading))
    task.set_caching_options(False)  # TFX's own cache knows a step's data; Kubeflow's does not
    retries = cluster.retries
    task.set_retry(
        num_retries=retries.count, backoff_duration=f"{retries.wait_seconds}s", backoff_factor=float(retries.factor)
    )
    _place(task, cluster.machine_of(pod.reading[0]))
    kubernetes.set_timeout(task, 60 * sum(cluster.machine_of(step).timeout_minutes for step in pod.reading))
    _describe(task, cluster)
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)
    for volume in cluster.volumes:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.at)
    for empty in cluster.empty_directories:
        kubernetes.empty_dir_mount(task, empty.name, empty.at, empty.medium, empty.size)
    for secret in cluster.secrets:
        if secret.at:
            kubernetes.use_secret_as_volume(task, secret.name, secret.at)
        for variable, key in secret.env.items():
            kubernetes.use_secret_as_env(task, secret.name, {key: variable})
    for keys in cluster.config_maps:
        if keys.at:
            kubernetes.use_config_map_as_volume(task, keys.name, keys.at)
        for variable, key in keys.env.items():
            kubernetes.use_config_map_as_env(task, keys.name, {key: variable})


def _place(task: Any, machine: Machine) -> None:
    """Set the size of the pod, and the nodes where it may run."""
    task.set_cpu_request(machine.cpu).set_cpu_limit(machine.cpu)
    task.set_memory_request(machine.memory).set_memory_limit(machine.memory)
    if machine.accelerators:
        task.set_accelerator_type(machine.accelerators.resource).set_accelerator_limit(machine.accelerators.count)
    for label, value in machine.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for affinity in machine.node_affinity:
        term = {"key": affinity.key, "operator": affinity.operator, "values": list(affinity.values)}
        kubernetes.add_node_affinity(task, match_expressions=[term], weight=affinity.weight)
    for toleration in machine.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())


def _describe(task: Any, cluster: KubeflowSettings) -> None:
    """Set its image pull options, labels and user."""
    if cluster.image_pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    for label, value in cluster.labels.items():
        kubernetes.add_pod_label(task, label, value)
    for name, value in cluster.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    if cluster.run_as:
        kubernetes.set_security_context(task, cluster.run_as.user, cluster.run_as.group, run_as_non_root=True)
