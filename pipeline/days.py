"""What a day's run is given, and whether the day is done: the same input is not worked on twice."""

import hashlib
from datetime import date

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration.portable import inputs_utils
from tfx.proto.orchestration import pipeline_pb2

from components.artifacts import SPAN_PROPERTY
from components.example_gen import sources
from components.example_gen.settings import FROM_LOG
from components.pusher.versions import PushFolder
from components.resolver.earlier import BASE_CATALOGUE_KEY, BASE_COUNTS_KEY, MODEL_KEY
from pipeline.config import Config
from pipeline.create import BASELINE, CATALOGUE_BEFORE, COUNTS_BEFORE, WARM_START
from pipeline.glance import input_files, seen
from pipeline.handle import PatientMetadata
from pipeline.metadata import Records
from pipeline.runs import Given, Run
from schemas.errors import UserError


def given(
    config: Config, day: date, compiled: pipeline_pb2.Pipeline, records: Records, connection: mlmd.ConnectionConfig
) -> Given:
    """What a run that starts now is given.

    Retention removes models that no coming day needs. A day that is done does not become another by that: where nothing is left
    to go on from, it is still given the model that its last run went on from.

    Args:
        config: the configuration.
        day: the UTC day.
        compiled: the day's pipeline, before the run's id is put in: all that the steps are told, and the digest of the code.
        records: of the runs.
        connection: to ML Metadata.
    """
    last = records.last_complete(config.name, day)
    before = last.given if last and last.given else Given("", 0, "", 0)
    base_model, base_day = _earlier(compiled, WARM_START, connection) if config.trainer.warm_start else (0, "")
    baseline_model, _ = _earlier(compiled, BASELINE, connection)
    base_counts, _ = _earlier(compiled, COUNTS_BEFORE, connection, BASE_COUNTS_KEY)
    if config.trainer.warm_start and not base_model and records.is_removed(before.base_model):
        base_model, base_day = before.base_model, before.base_day
    if not baseline_model and records.is_removed(before.baseline_model):
        baseline_model = before.baseline_model
    if not base_counts and records.is_removed(before.base_counts):
        base_counts = before.base_counts
    base_catalogue = 0
    if config.data.catalogue == FROM_LOG:
        base_catalogue, _ = _earlier(compiled, CATALOGUE_BEFORE, connection, BASE_CATALOGUE_KEY)
        if not base_catalogue and records.is_removed(before.base_catalogue):
            base_catalogue = before.base_catalogue
    files = input_files(config, day, goes_on=base_model != 0)
    # Not the deployment: TFX packs it in another order in each process, and the digest of the code covers it.
    parts = [*(node.SerializeToString(deterministic=True).hex() for node in compiled.nodes), *files]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    now_seen = seen(config, day, files, records)
    return Given(digest, base_model, base_day, baseline_model, base_counts, base_catalogue, now_seen)


def done(config: Config, day: date, now: Given, records: Records) -> Run | None:
    """The last complete run of a day, if it was given the same and what it pushed, or something newer, is still there.

    A day whose model a rollback took back is done too: the same command does not push it again.

    Raises:
        UserError: the day is to be run again, and the model that it went on from was removed.
    """
    last = records.last_complete(config.name, day)
    if last and last.given and now == last.given:
        versions = [manifest.version for manifest in PushFolder(config.serving).manifests()]
        if last.version is None or any(version >= last.version for version in versions):
            if last.given.seen != now.seen:  # such as what retention removed meanwhile
                records.note_given(last.run, now)
            return last
    if records.is_removed(now.base_model):
        raise UserError(
            f"{day} was run before, and went on from the model of {now.base_day}, which retention has removed. Start anew with "
            f"{now.base_day} or with {day} (--set trainer.warm_start=false), and run the days behind it again."
        )
    return None


def _earlier(
    compiled: pipeline_pb2.Pipeline, name: str, connection: mlmd.ConnectionConfig, key: str = MODEL_KEY
) -> tuple[int, str]:
    """The id and the day of the artifact that a resolver of the pipeline finds now; 0 and nothing where there is none."""
    node = next(n.pipeline_node for n in compiled.nodes if n.pipeline_node.node_info.id == name)
    with PatientMetadata(connection) as handle:
        resolved = inputs_utils.resolve_input_artifacts(pipeline_node=node, metadata_handle=handle)
    found = resolved[0][key]
    if not found:
        return 0, ""
    return found[0].id, sources.day_of(found[0].get_int_custom_property(SPAN_PROPERTY)).isoformat()
