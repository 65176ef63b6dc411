"""The TFX pipeline as a pipeline of Kubeflow Pipelines 2: a container a node, in TFX's order.

TFX's own representation does not travel: each step makes it from the configuration in its image and from the day, by the code
that `ndr run` uses. What travels is a digest of both, which the step checks.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kfp import compiler, dsl, kubernetes

from pipeline import day_run, digests
from pipeline.config import Config
from pipeline.kubeflow.settings import KubeflowSettings, Machine
from pipeline.run_node import BEGIN, END
from schemas.errors import UserError

ANY_DAY = date(2000, 1, 1)  # which steps there are does not depend on it


def compile_pipeline(config: Config, path: Path, settings: Sequence[str]) -> str:
    """The pipeline's YAML, the same for the same configuration and code.

    Args:
        config: the configuration.
        path: its file, as the steps find it in the image.
        settings: what was set over the file's values; a run that names none is given these.

    Raises:
        UserError: there is no `kubeflow` section, or it names a step that the pipeline does not have.
    """
    given = config.kubeflow
    if given is None:
        raise UserError(f"{path}: kubeflow: is missing. It says at least which image the steps run in: {{image: ...}}.")
    upstream = _upstream(config)
    if unknown := sorted(given.steps.keys() - upstream.keys()):
        raise UserError(
            f"{path}: kubeflow.steps: expected steps of the pipeline, received {', '.join(unknown)}. "
            f"It has {', '.join(upstream)}."
        )
    fixed = ["--config", str(path), "--definition", digests.definition(path, config)]
    overrides = list(settings)

    @dsl.pipeline(
        name=_kebab(config.name), description=f"Trains, judges and ships the model of {config.name} for a day."
    )
    def daily(date: str, days_back: int = 0, settings: list[str] = overrides) -> None:
        tasks: dict[str, Any] = {}
        for name, needed in upstream.items():
            run_step = _component(name, given.image, fixed)
            run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
            task = run_step(date=date, days_back=days_back, settings=settings, run_id=run_id)
            tasks[name] = task.after(*(tasks[each] for each in needed)).set_display_name(name)
            _configure(task, given, given.machine_of(name))

    with TemporaryDirectory() as folder:
        target = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(daily, str(target))
        return target.read_text(encoding="utf-8")


def _upstream(config: Config) -> Mapping[str, Sequence[str]]:
    """By step, those that it comes behind; in an order in which they can run."""
    nodes = [node.pipeline_node for node in day_run.compile_pipeline(config, ANY_DAY).nodes]
    names = [node.node_info.id for node in nodes]
    steps = {node.node_info.id: sorted(node.upstream_nodes) or [BEGIN] for node in nodes}
    return {BEGIN: [], **steps, END: names}


def _component(name: str, image: str, fixed: Sequence[str]) -> Any:
    def step(date: str, days_back: int, settings: list[str], run_id: str) -> dsl.ContainerSpec:
        given = ["--run-id", run_id, "--date", date, "--days-back", days_back, "--settings", settings]
        command = ["python", "-m", "pipeline.run_node"]
        return dsl.ContainerSpec(image=image, command=command, args=["--node", name, *given, *fixed])

    step.__name__ = _kebab(name)
    return dsl.container_component(step)


def _kebab(name: str) -> str:
    """As Kubernetes takes names: `InteractionDrift` is interaction-drift."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


def _configure(task: Any, given: KubeflowSettings, machine: Machine) -> None:
    """What Kubernetes is to know of a step."""
    task.set_caching_options(False)  # TFX's own cache knows what a step's data are; Kubeflow's does not
    task.set_cpu_request(machine.cpu).set_cpu_limit(machine.cpu)
    task.set_memory_request(machine.memory).set_memory_limit(machine.memory)
    if machine.accelerators:
        task.set_accelerator_type(machine.accelerators.resource).set_accelerator_limit(machine.accelerators.count)
    for label, value in machine.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in machine.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    kubernetes.set_timeout(task, machine.timeout_minutes * 60)
    retries = given.retries
    task.set_retry(
        num_retries=retries.count,
        backoff_duration=f"{retries.wait_seconds}s",
        backoff_factor=retries.factor,
        backoff_max_duration=f"{retries.longest_wait_seconds}s",
    )
    for name, value in given.env.items():
        task.set_env_variable(name, value)
    for volume in given.volumes:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.at)
    for secret in given.secrets:
        for variable, key in secret.env.items():
            kubernetes.use_secret_as_env(task, secret_name=secret.name, secret_key_to_env={key: variable})
        if secret.at:
            kubernetes.use_secret_as_volume(task, secret_name=secret.name, mount_path=secret.at)
