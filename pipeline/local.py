"""Runs the pipeline on this machine, step by step, through TFX's own launcher."""

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from components.pusher.versions import PushFolder
from pipeline.config import Config
from pipeline.create import create_pipeline
from pipeline.days import done, given
from pipeline.metadata import Records, Run, Step, connection, new_run_id
from schemas.errors import UserError

CODE_FOLDERS = ("components", "schemas", "serving")
PROJECT = Path(__file__).resolve().parent.parent

StepListener = Callable[[Step, float], None]


def compile_pipeline(config: Config, day: date) -> pipeline_pb2.Pipeline:
    """The pipeline of one day in TFX's intermediate representation.

    Every step gets the digest of the project's code as a parameter: TFX's cache then never serves what other code made,
    and ML Metadata knows which code made what.
    """
    pipeline = create_pipeline(config, day, connection(config.metadata_path))
    compiled: pipeline_pb2.Pipeline = compiler.Compiler().compile(pipeline)
    digest = code_digest()
    steps = runner_utils.extract_local_deployment_config(compiled).executor_specs
    for node in compiled.nodes:
        if node.pipeline_node.node_info.id not in steps:  # a resolver runs no code of its own
            continue
        node.pipeline_node.parameters.parameters["code_digest"].field_value.string_value = digest
    # The push folder is outside ML Metadata's sight and may have changed; pushing again what is there does nothing.
    pusher = compiled.nodes[-1].pipeline_node
    pusher.execution_options.caching_options.enable_cache = False
    return compiled


def _check_beam(options: Sequence[str]) -> None:
    """Beam itself finds out in the middle of a run, and in its own words."""
    runner = PipelineOptions(list(options)).view_as(StandardOptions).runner
    try:
        create_runner(runner or StandardOptions.DEFAULT_RUNNER)
    except (ValueError, ImportError) as error:
        raise UserError(f"beam: expected a runner that Beam has here, received {runner!r}: {error}.") from error


def code_digest() -> str:
    """A digest of all code that the steps run."""
    content = hashlib.sha256()
    for folder in CODE_FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            content.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def run_locally(
    config: Config, day: date, started: Callable[[str, int, int], None], ended: StepListener
) -> tuple[Run, bool]:
    """Runs every step for one day, in order; does nothing where the day is done with the same input.

    Args:
        config: the configuration.
        day: the UTC day.
        started: told the node, its position from 1 and the number of nodes before each step.
        ended: told the step and its seconds after each.

    Returns:
        The run's record, or that of the run which did the day before; and whether there was anything to do.

    Raises:
        schemas.errors.UserError: a step found fault with the data or the configuration.
    """
    _check_beam(config.beam)
    metadata_connection = connection(config.metadata_path)
    records = Records(metadata_connection)
    # A push that was killed between its renames must not wait for the next blessed model to be put right.
    PushFolder(config.serving).recover()
    compiled = compile_pipeline(config, day)
    now = given(config, day, compiled, records, metadata_connection)
    before = done(config, day, now, records)
    if before:
        return before, False
    run_id = new_run_id(day)
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    deployment = runner_utils.extract_local_deployment_config(compiled)
    for position, node in enumerate(compiled.nodes, 1):
        name = node.pipeline_node.node_info.id
        started(name, position, len(compiled.nodes))
        begun = time.monotonic()
        launcher.Launcher(
            pipeline_node=node.pipeline_node,
            mlmd_connection=tfx_metadata.Metadata(metadata_connection),
            pipeline_info=compiled.pipeline_info,
            pipeline_runtime_spec=compiled.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
        ).launch()
        step = records.run(run_id).steps[-1]
        ended(step, time.monotonic() - begun)
    records.note_given(run_id, now)
    return records.run(run_id), True
