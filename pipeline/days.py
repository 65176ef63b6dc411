"""What a day's run is given, and whether the day is done: the same input is not worked on twice."""

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration.portable import inputs_utils
from tfx.proto.orchestration import pipeline_pb2

from components.artifacts import SPAN_PROPERTY
from components.example_gen import sources
from components.example_gen.sources import EPOCH, Window
from components.pusher.versions import PushFolder
from components.resolver.earlier import MODEL_KEY
from pipeline.config import Config
from pipeline.create import BASELINE, WARM_START
from pipeline.metadata import Given, Records, Run
from schemas.errors import UserError


@dataclass(frozen=True)
class Earlier:
    """The blessed model of an earlier day that a day goes on from, or has to beat.

    Attributes:
        model: the artifact's id.
        day: the UTC day, ISO 8601.
    """

    model: int
    day: str


def given(config: Config, day: date, compiled: pipeline_pb2.Pipeline, connection: mlmd.ConnectionConfig) -> Given:
    """What a run that starts now would be given.

    Args:
        config: the configuration.
        day: the UTC day.
        compiled: the day's pipeline, before the run's id is put in: all that the steps are told, and the digest of the code.
        connection: to ML Metadata.
    """
    base, baseline = (_earlier(compiled, node, connection) for node in (WARM_START, BASELINE))
    window = Window.of(config.data, day, goes_on=base is not None and config.trainer.warm_start)
    parts = [
        # Not the deployment: TFX packs it in another order in each process, and the digest of the code covers it.
        *(node.SerializeToString(deterministic=True).hex() for node in compiled.nodes),
        sources.fingerprint_of(lambda: sources.catalogue_files(config.data, day)),
        sources.fingerprint_of(lambda: sources.interaction_files(config.data, window)),
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return Given(
        digest,
        base_model=base.model if base else 0,
        base_day=base.day if base and config.trainer.warm_start else "",
        baseline_model=baseline.model if baseline else 0,
    )


def done(config: Config, day: date, now: Given, records: Records) -> Run | None:
    """The last complete run of a day, if it was given the same and what it pushed, or something newer, is still there.

    Raises:
        UserError: the day is to be run again, and the model that it went on from was removed.
    """
    last = records.last_complete(config.name, day)
    if last is None or last.given is None:
        return None
    before = last.given
    # Retention removes what no coming day needs. A day that is done does not become another by that.
    is_base_removed = not now.base_model and before.base_model != 0 and not records.is_live(before.base_model)
    if now.digest == before.digest and (is_base_removed or now == before):
        versions = [manifest.version for manifest in PushFolder(str(config.serving)).manifests()]
        return last if last.version is None or any(version >= last.version for version in versions) else None
    if is_base_removed and before.base_day:
        raise UserError(
            f"{day} was run before, and went on from the model of {before.base_day}, which retention has removed. Run the days "
            f"from {before.base_day} on again (ndr backfill --from {before.base_day} --to {day}), or start anew with this "
            "day: --set trainer.warm_start=false."
        )
    return None


def between(first: date, last: date) -> list[date]:
    """Every day from the first to the last, oldest first."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _earlier(compiled: pipeline_pb2.Pipeline, name: str, connection: mlmd.ConnectionConfig) -> Earlier | None:
    """What a resolver of the pipeline would find now."""
    node = next(n.pipeline_node for n in compiled.nodes if n.pipeline_node.node_info.id == name)
    with tfx_metadata.Metadata(connection) as handle:
        resolved = inputs_utils.resolve_input_artifacts(pipeline_node=node, metadata_handle=handle)
    models = resolved[0][MODEL_KEY]
    if not models:
        return None
    day = EPOCH + timedelta(days=models[0].get_int_custom_property(SPAN_PROPERTY))
    return Earlier(models[0].id, day.isoformat())
