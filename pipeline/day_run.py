"""One day's run, shared by both runners: a loop on this machine, or a pod a node."""

import ctypes
import platform
from datetime import date

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.dsl.io import fileio
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, outputs_utils, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from components import beam_memory  # noqa: F401  # which makes small pipelines cheap
from components.pusher.versions import PushFolder
from pipeline import digests, origin
from pipeline.beam_settings import BeamSettings, RunnerSettings
from pipeline.checks import job_server
from pipeline.config import Config
from pipeline.create import create_pipeline
from pipeline.days import done, given
from pipeline.records import NODE_CONTEXT, Records, Run
from pipeline.records.handle import PatientMetadata
from schemas.errors import UserError


def compile_pipeline(config: Config, day: date) -> pipeline_pb2.Pipeline:
    """Compile the pipeline of one day to TFX's intermediate representation.

    Every step gets the digest of the project's code as a parameter: TFX's cache then never returns what other code made,
    and ML Metadata records which code made what.
    """
    return compiled_of(create_pipeline(config, day))


def compiled_of(pipeline: Pipeline) -> pipeline_pb2.Pipeline:
    """Compile a pipeline whose last node is a Pusher; see `compile_pipeline`."""
    compiled: pipeline_pb2.Pipeline = compiler.Compiler().compile(pipeline)
    digest = digests.code()
    steps = runner_utils.extract_local_deployment_config(compiled).executor_specs
    for node in compiled.nodes:
        if node.pipeline_node.node_info.id not in steps:  # a resolver runs no code of its own
            continue
        node.pipeline_node.parameters.parameters["code_digest"].field_value.string_value = digest
    # ML Metadata does not see the push folder, which may have changed; pushing existing content again does nothing.
    pusher = compiled.nodes[-1].pipeline_node
    pusher.execution_options.caching_options.enable_cache = False
    return compiled


def name_run(compiled: pipeline_pb2.Pipeline, run_id: str) -> None:
    """Put a run's id into a compiled pipeline."""
    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})


def begin(config: Config, day: date, run_id: str, records: Records) -> tuple[pipeline_pb2.Pipeline, Run | None]:
    """Prepare a run: record its input, and find out whether there is anything to do.

    Args:
        config: the configuration.
        day: the UTC day.
        run_id: the new run's id.
        records: the records of the runs.

    Returns:
        The compiled pipeline with the run's id; and the run that already completed the day with the same input, or None.
        If there is such a run, there is nothing to do and nothing was recorded.

    Raises:
        schemas.errors.UserError: the configuration, the dataset or the push folder is invalid, the day is closed, the root was
        moved, the model that the day continued from was removed, or a job server or its workers cannot run the steps.
    """
    check_runners(config.beam)
    config.data.check_open(day)
    origin.check_root(config, records)
    # Complete a push that was killed between its renames now, not at the next blessed model.
    PushFolder(config.serving).recover()
    made_from = origin.of(config)
    compiled = compile_pipeline(config, day)
    now = given(config, day, compiled, records)
    before = done(config, day, now, records)
    name_run(compiled, run_id)
    if before is None:
        check_engines(config.beam)
        register(compiled, records)
        records.note_given(run_id, now)
        records.note_origin(run_id, made_from)
    return compiled, before


def register(compiled: pipeline_pb2.Pipeline, records: Records) -> None:
    """Register the run with ML Metadata before any of its nodes runs."""
    contexts = pipeline_pb2.NodeContexts(
        contexts=[c for c in compiled.nodes[0].pipeline_node.contexts.contexts if c.type.name != NODE_CONTEXT]
    )
    with PatientMetadata(records.connection) as handle:
        context_lib.prepare_contexts(handle, contexts)


def launch(compiled: pipeline_pb2.Pipeline, name: str, to: mlmd.ConnectionConfig) -> None:
    """Run one node through TFX: its driver, its executor, and the publishing of its outputs to ML Metadata.

    Raises:
        schemas.errors.UserError: the node rejected the data.
    """
    deployment = runner_utils.extract_local_deployment_config(compiled)
    launcher.Launcher(
        pipeline_node=node_of(compiled, name),
        mlmd_connection=PatientMetadata(to),
        pipeline_info=compiled.pipeline_info,
        pipeline_runtime_spec=compiled.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, name),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
    ).launch()
    release_memory()


def release_memory() -> None:
    """Return what the allocators keep of a step's memory to the operating system: the next step of the process needs its own."""
    pa.default_memory_pool().release_unused()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def clear_outputs(compiled: pipeline_pb2.Pipeline, name: str, execution: int) -> None:
    """Remove the outputs of an incomplete attempt: TFX gives the next attempt the same folders."""
    resolver = outputs_utils.OutputsResolver(
        pipeline_node=node_of(compiled, name),
        pipeline_info=compiled.pipeline_info,
        pipeline_runtime_spec=compiled.runtime_spec,
    )
    for artifacts in resolver.generate_output_artifacts(execution).values():
        for artifact in artifacts:
            if fileio.exists(artifact.uri):
                fileio.rmtree(artifact.uri)


def is_resolver(compiled: pipeline_pb2.Pipeline, name: str) -> bool:
    """Return whether a node only resolves artifacts, without an executor."""
    return name not in runner_utils.extract_local_deployment_config(compiled).executor_specs


def engine_of(config: Config, compiled: pipeline_pb2.Pipeline, name: str) -> RunnerSettings | None:
    """Return what runs a node if that is a job server, else None."""
    spec = runner_utils.extract_local_deployment_config(compiled).executor_specs.get(name)
    if spec is None or not spec.HasField("beam_executable_spec"):
        return None
    runner = config.beam.of(name)
    return runner if runner.job_server else None


def node_of(compiled: pipeline_pb2.Pipeline, name: str) -> pipeline_pb2.PipelineNode:
    """Return a node by its id.

    Raises:
        schemas.errors.UserError: there is no such node.
    """
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled.nodes}
    if name not in nodes:
        raise UserError(f"expected one of the pipeline's nodes, received {name!r}: {', '.join(nodes)}.")
    return nodes[name]


def check_runners(beam: BeamSettings) -> None:
    """Check the Beam runners now: Beam itself would fail in the middle of a run, with an error of its own."""
    for settings in (beam, *beam.steps.values()):
        runner = PipelineOptions(settings.arguments).view_as(StandardOptions).runner
        try:
            create_runner(runner)
        except (ValueError, ImportError) as error:
            raise UserError(f"beam: expected a runner that Beam has here, received {runner!r}: {error}.") from error


def check_engines(beam: BeamSettings) -> None:
    """Check that the job servers and their workers can run the steps; see `pipeline.checks.job_server.check`."""
    for engine in beam.engines:
        job_server.check(engine)
