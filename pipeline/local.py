"""Runs the pipeline on this machine, step by step, through TFX's own launcher."""

import time
from collections.abc import Callable
from datetime import date

from tfx.proto.orchestration import pipeline_pb2

from pipeline import day_run
from pipeline.checks import job_server
from pipeline.config import Config
from pipeline.monitoring import metrics
from pipeline.records import Records, Run, Step, connection, new_run_id
from pipeline.refresh import refreshing
from schemas.errors import PassingError, UserError

StepListener = Callable[[Step, float], None]
Begin = Callable[[Config, date, str, Records], tuple[pipeline_pb2.Pipeline, Run | None]]


def run_locally(
    config: Config,
    day: date,
    started: Callable[[str, int, int], None],
    ended: StepListener,
    begin: Begin = day_run.begin,
    kind: str = "",
) -> tuple[Run, bool]:
    """Run every step for one day, in order, unless the day is done with the same input.

    Args:
        config: the configuration.
        day: the UTC day.
        started: called before each step with the node, its position from 1 and the number of nodes.
        ended: called after each step with the step and its duration in seconds.
        begin: starts the run: `pipeline.day_run.begin`, or that of `pipeline.refresh.run`.
        kind: the kind of run, as `pipeline.records.runs.new_run_id` takes it.

    Returns:
        The run's record, or that of the run that completed the day before; and whether there was anything to do.

    Raises:
        schemas.errors.UserError: a step rejected the data or the configuration.
    """
    try:
        return _run(config, day, started, ended, begin, kind)
    finally:
        metrics.export(config)


def _run(
    config: Config,
    day: date,
    started: Callable[[str, int, int], None],
    ended: StepListener,
    begin: Begin,
    kind: str,
) -> tuple[Run, bool]:
    records = Records(connection(config))
    run_id = new_run_id(day, kind)
    compiled, before = begin(config, day, run_id, records)
    if before:
        return before, False
    for position, node in enumerate(compiled.nodes, 1):
        name = node.pipeline_node.node_info.id
        started(name, position, len(compiled.nodes))
        begun = time.monotonic()
        try:
            with job_server.faults(day_run.engine_of(config, compiled, name)):
                day_run.launch(compiled, name, records.connection)
        except PassingError:
            raise
        except UserError as error:
            records.note_fault(run_id, f"{name}: {error}")
            raise
        ended(records.run(run_id).steps[-1], time.monotonic() - begun)
        if refreshing.note_if_unchanged(name, run_id, records):
            break
    return records.run(run_id), True
