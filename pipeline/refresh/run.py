"""A refresh's run, whoever runs its nodes; what `pipeline.day_run` is to a day's."""

from datetime import date

from tfx.proto.orchestration import pipeline_pb2

from components.pusher.versions import PushFolder
from pipeline import day_run, origin
from pipeline.config import Config
from pipeline.records import Records, Run
from pipeline.refresh import refreshing
from pipeline.refresh.create import create_refresh
from pipeline.refresh.refreshing import Base


def compile_pipeline(config: Config, base: Base, day: date) -> pipeline_pb2.Pipeline:
    """Compile the pipeline of a refresh; see `pipeline.day_run.compile_pipeline`."""
    return day_run.compiled_of(create_refresh(config, base, day))


def begin(config: Config, day: date, run_id: str, records: Records) -> tuple[pipeline_pb2.Pipeline, Run | None]:
    """Begin a refresh, as `pipeline.day_run.begin` begins a day.

    Raises:
        schemas.errors.UserError: the configuration, the dataset or the push folder is invalid, the root was moved, or as in
            `pipeline.refresh.refreshing.given`.
    """
    day_run.check_runners(config.beam)
    origin.check_root(config, records)
    PushFolder(config.serving).recover()
    now, before = refreshing.given(config, day, records)
    base = refreshing.base_numbered(config, now.refreshes)
    compiled = compile_pipeline(config, base, day)
    day_run.name_run(compiled, run_id)
    if before is None:
        day_run.check_engines(config.beam)
        day_run.register(compiled, records)
        records.note_given(run_id, now)
        records.note_origin(run_id, origin.of(config))
    return compiled, before
