"""Tells whether a day is done without importing TFX, so that a day with nothing to do costs little.

A run records what it saw when it began (`Given.seen`). If the same is seen again, TFX would get the same input and find the
same model to continue from. If not, the day may still be done: `pipeline.days` decides.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

from components import utc
from components.example_gen import sources
from components.example_gen.sources import Window
from ndr_client.manifests import Manifests
from pipeline import origin
from pipeline.config import Config
from pipeline.records import Records, Run, connection, has_begun

LEFT_BY_A_KILL = (".staging", ".trash")  # see `components.pusher.versions`


def done(config: Config, day: date) -> Run | None:
    """Return the last complete run of a day if it is certainly done; None if only a closer look can tell.

    Raises:
        schemas.errors.UserError: the feature specification is invalid, or ML Metadata cannot be reached.
    """
    if not has_begun(config) or "://" in config.serving:
        return None
    records = Records(connection(config))
    last = records.last_complete(config.name, day)
    if last is None or last.given is None:
        return None
    files = input_files(config, day, goes_on=last.given.base_model != 0)
    if last.given.seen != seen(config, day, files, records):
        return None
    folder = Path(config.serving)
    if any((folder / name).is_dir() and any((folder / name).iterdir()) for name in LEFT_BY_A_KILL):
        return None
    is_pushed = last.version is None or any(manifest.version >= last.version for manifest in Manifests(folder).read())
    return last if is_pushed else None


def seen(config: Config, day: date, files: Sequence[str], records: Records) -> str:
    """Return a digest of everything that decides the input of a run.

    Args:
        config: the configuration.
        day: the UTC day.
        files: see `input_files`.
        records: the records of the runs.

    Raises:
        schemas.errors.UserError: the feature specification is invalid.
    """
    made_from = origin.of(config)
    inputs = [
        day.isoformat(),
        made_from.code,
        made_from.configuration_digest,
        metadata.version("tfx"),
        records.before(utc.span(day)),
        *files,
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def input_files(config: Config, day: date, goes_on: bool) -> list[str]:
    """Return the fingerprints of the files that a run reads.

    Args:
        config: the configuration.
        day: the UTC day.
        goes_on: whether training continues from an earlier model.

    Raises:
        schemas.errors.UserError: the feature specification is invalid.
    """
    spec = config.feature_spec()
    window = Window.of(config.data, day, goes_on, has_history=spec.history is not None)
    items, of_users = (
        sources.first_to_see(config.data, day, goes_on, changing)
        for changing in (spec.changing_item_features, spec.changing_user_features)
    )
    fingerprints = [
        sources.fingerprint_of(lambda: sources.catalogue_files(config.data, day, items)),
        sources.fingerprint_of(lambda: sources.interaction_files(config.data, window)),
    ]
    if (users := config.data.users) is not None:
        fingerprints.append(sources.fingerprint_of(lambda: sources.newest_files(users, day, "users", of_users)))
    return fingerprints
