"""The input of a day's run, and whether the day is done: the same input is never processed twice."""

import hashlib
from datetime import date

from tfx.orchestration.portable import inputs_utils
from tfx.proto.orchestration import pipeline_pb2

from components import recorded, utc
from components.example_gen.settings import FROM_LOG
from components.pusher.versions import PushFolder
from components.resolver.earlier import BASE_CATALOGUE_KEY, BASE_COUNTS_KEY, MODEL_KEY
from pipeline.config import Config
from pipeline.day_inputs import BASELINE, CATALOGUE_BEFORE, COUNTS_BEFORE, WARM_START
from pipeline.glance import input_files, seen
from pipeline.records import Given, Records, Run
from pipeline.records.handle import PatientMetadata
from schemas.errors import UserError


def given(config: Config, day: date, compiled: pipeline_pb2.Pipeline, records: Records) -> Given:
    """Return the input of a run that starts now.

    Retention removes models that no coming day needs. That does not change a completed day: if no earlier model is left,
    the day's input still names the model that its last run continued from.

    Args:
        config: the configuration.
        day: the UTC day.
        compiled: the day's pipeline before the run's id is set: all settings of the steps, and the digest of the code.
        records: the records of the runs.
    """
    last = records.last_complete(config.name, day)
    before = last.given if last and last.given else Given("", 0, "", 0)
    base_model, base_day = _earlier(compiled, WARM_START, records) if config.trainer.warm_start else (0, "")
    baseline_model, _ = _earlier(compiled, BASELINE, records)
    base_counts, _ = _earlier(compiled, COUNTS_BEFORE, records, BASE_COUNTS_KEY)
    if config.trainer.warm_start and not base_model and records.is_removed(before.base_model):
        base_model, base_day = before.base_model, before.base_day
    if not baseline_model and records.is_removed(before.baseline_model):
        baseline_model = before.baseline_model
    if not base_counts and records.is_removed(before.base_counts):
        base_counts = before.base_counts
    base_catalogue = 0
    if config.data.catalogue == FROM_LOG:
        base_catalogue, _ = _earlier(compiled, CATALOGUE_BEFORE, records, BASE_CATALOGUE_KEY)
        if not base_catalogue and records.is_removed(before.base_catalogue):
            base_catalogue = before.base_catalogue
    files = input_files(config, day, goes_on=base_model != 0)
    # Leaves out the deployment: TFX serialises it in another order in each process, and the code's digest covers it.
    inputs = [*(node.SerializeToString(deterministic=True).hex() for node in compiled.nodes), *files]
    digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
    now_seen = seen(config, day, files, records)
    return Given(digest, base_model, base_day, baseline_model, base_counts, base_catalogue, seen=now_seen)


def done(config: Config, day: date, now: Given, records: Records) -> Run | None:
    """Return the last complete run of a day if it had the same input, and its version or a newer one is still pushed.

    A day whose model was rolled back is done too: the same command does not push it again.

    Raises:
        UserError: the day must run again, and the model that it continued from was removed.
    """
    last = records.last_complete(config.name, day)
    if last and last.given and now == last.given:
        versions = [manifest.version for manifest in PushFolder(config.serving).manifests()]
        if last.version is None or any(version >= last.version for version in versions):
            if last.given.seen != now.seen:  # for example after retention removed something
                records.note_given(last.run, now)
            return last
    if records.is_removed(now.base_model):
        raise UserError(
            f"{day} was run before, and continued from the model of {now.base_day}, which retention has removed. Start anew with "
            f"{now.base_day} or with {day} (--set trainer.warm_start=false), and run the later days again."
        )
    return None


def _earlier(compiled: pipeline_pb2.Pipeline, name: str, records: Records, key: str = MODEL_KEY) -> tuple[int, str]:
    """Return id and day of the artifact that a resolver of the pipeline finds now; 0 and "" if there is none."""
    node = next(n.pipeline_node for n in compiled.nodes if n.pipeline_node.node_info.id == name)
    with PatientMetadata(records.connection) as handle:
        resolved = inputs_utils.resolve_input_artifacts(pipeline_node=node, metadata_handle=handle)
    artifacts = resolved[0][key]
    if not artifacts:
        return 0, ""
    return artifacts[0].id, utc.day_of(artifacts[0].get_int_custom_property(recorded.SPAN)).isoformat()
