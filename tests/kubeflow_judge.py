"""What Kubeflow makes of what we compile and send, by Kubeflow's own code.

* `command` runs here: the `kfp` package's local runner resolves the inputs of a step and fills in the placeholders of its command.
* `answer` reads what Kubeflow's API server, schedule controller, drivers and launcher answered; `tests/kubeflow_answers/README.md`
  says to what, and how they were recorded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.local import executor_input_utils, io, placeholder_utils
from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
from kfp.pipeline_spec import pipeline_spec_pb2

ANSWERS = Path(__file__).parent / "kubeflow_answers"


def command(
    compiled: str,
    task: str,
    parameters: Mapping[str, Any],
    run: str,
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
    folder: str = "/tmp/kfp/outputs",
) -> list[str]:
    """What the container of a task is started with.

    Args:
        compiled: what `ndr kubeflow compile` wrote.
        task: its name in the compiled pipeline.
        parameters: the run's, as `runtime_config.parameters` of a request has them; defaults are filled in.
        run: the run's id, which `{{$.pipeline_job_uuid}}` becomes.
        outputs: by task and name, the output parameters of tasks that have ended.
        folder: where the task finds a file to write for each of its own output parameters.
    """
    pipeline = next(yaml.safe_load_all(compiled))
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    executors = json_format.ParseDict(pipeline["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    known = io.IOStore()
    for name, value in OrchestratorUtils.join_user_inputs_and_defaults(
        dict(parameters), spec.root.input_definitions
    ).items():
        known.put_parent_input(name, value)
    for producer, values in (outputs or {}).items():
        for name, value in values.items():
            known.put_task_output(producer, name, value)
    wanted = spec.root.dag.tasks[task]
    component = spec.components[wanted.component_ref.name]
    container = executors.executors[component.executor_label].container
    given = executor_input_utils.construct_executor_input(
        component, OrchestratorUtils.make_task_arguments(wanted.inputs, known), folder, block_input_artifact=True
    )
    return placeholder_utils.replace_placeholders(
        full_command=[*container.command, *container.args],
        executor_input_dict=executor_input_utils.executor_input_to_dict(given, component),
        pipeline_resource_name=spec.pipeline_info.name,
        task_resource_name=task,
        pipeline_root=folder,
        unique_pipeline_id=run,
    )


def answer(tag: str) -> dict[str, Any]:
    """What Kubeflow Pipelines of a tag, such as 2.17.0, answered to `compiled()`."""
    answered: dict[str, Any] = json.loads((ANSWERS / f"{tag}.json").read_text(encoding="utf-8"))
    return answered


def compiled() -> str:
    """What `answer` was asked about: a pipeline that uses all of Kubeflow that ours can use."""
    return (ANSWERS / "pipeline.yaml").read_text(encoding="utf-8")
