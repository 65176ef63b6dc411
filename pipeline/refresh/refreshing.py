"""What a refresh works on, and whether there is anything to do. TensorFlow and TFX are not imported.

A refresh gives the live version a newer catalogue. Its run is of another pipeline in ML Metadata than the days' (`pipeline_name`):
a day never continues from a refresh, is not compared with one, and does not count as done because of one. Further decisions:

- It is done when the last refresh was given the same: the model, the catalogue's files, the configuration and the code. So one that
  was rolled back is not pushed again until one of them changes, as a day is not.
- One that was killed is begun again on the version that it worked on: its finished steps come from TFX's cache, and a push that was
  complete is found.
- A catalogue with the same entries as the live one is noted as passed over, and nothing is pushed.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from components.example_gen import sources
from components.example_gen.settings import FROM_LOG
from components.pusher.manifest import Manifest, find, in_force
from components.refresh.settings import RefreshSettings
from components.trainer.settings import TrainerSettings
from pipeline import origin
from pipeline.config import Config
from pipeline.records import PASSED_OVER, UNCHANGED, Given, Records, Run
from pipeline.versions import pushes
from schemas import features
from schemas.declaration import Declaration
from schemas.errors import UserError

TOWERS = ("towers", "optimizer", "softmax", "frequency", "seed", "mixed_precision")
"""Of the trainer's settings, what a model that is read again must have been trained with."""
COMPARISON = "CatalogueComparison"
NEEDED = ("Model", "TransformGraph", "ModelEvaluation", "ModelBlessing")
OF_VERSION = ("ItemIndex",)


def pipeline_name(config: Config) -> str:
    """Return the name of a pipeline's refreshes in ML Metadata; no pipeline of days can have it."""
    return f"{config.name}.refresh"


@dataclass(frozen=True)
class Base:
    """The version that a refresh works on.

    Attributes:
        version: its number.
        day: the UTC day of its model.
        run: that made its catalogue and its index.
        model_run: that trained its model.
        is_refreshed: whether these are two, and the first is a refresh.
    """

    version: int
    day: date
    run: str
    model_run: str
    is_refreshed: bool

    @classmethod
    def of(cls, manifest: Manifest) -> "Base":
        """Return the version that a manifest describes."""
        is_refreshed = manifest.refreshes is not None
        return cls(manifest.version, date.fromisoformat(manifest.day), manifest.run, manifest.trained_by, is_refreshed)


def given(config: Config, day: date, records: Records) -> tuple[Given, Run | None]:
    """Determine the input of a refresh that starts now.

    Args:
        config: the configuration.
        day: the newest catalogue up to this UTC day is taken.
        records: the records of the runs.

    Returns:
        The input; and the run that already had the same one, or None. If there is such a run, there is nothing to do.

    Raises:
        UserError: nothing was pushed yet; there is no catalogue; the live version was trained with other features or towers; or
            what it was made from is gone.
    """
    if config.data.catalogue == FROM_LOG:
        raise UserError(
            f"data.catalogue: with {FROM_LOG} an item is known once the log has it, so that there is no newer catalogue to refresh "
            "from. Run the day, or write a catalogue."
        )
    manifests = pushes.manifests(config.serving)
    if not manifests:
        raise UserError(f"Nothing was pushed to {config.serving} yet. First: ndr run --config ... --date ...")
    live = manifests[-1]
    made_from = origin.of(config.model_copy(update={"refresh": RefreshSettings()}))  # how much may change is no input
    files = sources.fingerprint(sources.catalogue_files(config.data, day).files)
    inputs = [made_from.code, made_from.configuration_digest, live.model, files]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    base = live
    last = _last(config, records, live)
    if last is not None and last.given is not None and last.given.digest == digest:
        if last.state != "complete" and last.state != PASSED_OVER:
            base = find(manifests, last.given.refreshes)
            last = None
    else:
        last = None
    now = Given(digest, base_model=0, base_day=base.day, baseline_model=0, refreshes=base.version)
    if last is None:
        check(config, Base.of(base), records)
    return now, last


def base_numbered(config: Config, version: int) -> Base:
    """Return the version of a number, as a refresh works on it.

    Raises:
        UserError: it is not in the push folder.
    """
    return Base.of(find(pushes.manifests(config.serving), version))


def is_unchanged(run: Run) -> bool:
    """Whether a refresh found that the catalogue is the live one."""
    return bool(run.changes) and not any(run.changes[kind] for kind in ("new", "changed", "gone", "others"))


def note_if_unchanged(node: str, run_id: str, records: Records) -> bool:
    """Record that a run has nothing left to do, if the step that ended found no change."""
    if node != COMPARISON or not is_unchanged(records.run(run_id)):
        return False
    records.note_passed_over(run_id, UNCHANGED)
    return True


def nothing_to_do(config: Config, run: Run) -> str:
    """Say in a sentence why a refresh had nothing to do.

    Args:
        config: of the pipeline.
        run: that found the catalogue unchanged, or did the same before.
    """
    version = run.given.refreshes if run.passed_over_for == UNCHANGED and run.given else run.version
    if version is None:
        return f"The same was tried by run {run.run}, and was not pushed: {'; '.join(run.refused)}. Nothing to do."
    manifests = pushes.manifests(config.serving)
    in_use = {manifest.content for manifest in in_force(manifests)}
    if any(manifest.version == version and manifest.content not in in_use for manifest in manifests):
        return (
            f"Version {version} has this catalogue, and was rolled back: nothing to do until the catalogue changes. To bring it "
            f"back: ndr push --rollback --to {version}"
        )
    return f"Version {version} has this catalogue: nothing to do."


def check(config: Config, base: Base, records: Records) -> None:
    """Check that the inputs from earlier runs exist, and that the model can be restored.

    Raises:
        UserError: they do not, or it cannot.
    """
    trained = records.run(base.model_run)
    faults = list(_differences(config, trained)) if trained.origin else []
    if faults:
        raise UserError(
            f"Version {base.version} was trained with other {', '.join(faults)}: its towers cannot read what these make of a "
            "catalogue. Run the next day, or take the change back."
        )
    examples = {**records.example_uris(base.model_run), **records.example_uris(base.run)}
    places = [examples.get("interactions"), examples.get("catalogue")]
    for run, kinds in ((base.model_run, NEEDED), (base.run, OF_VERSION)):
        places += [next(iter(records.artifact_uris(run, kind)), None) for kind in kinds]
    if not all(place and ("://" in place or Path(place).exists()) for place in places):
        raise UserError(
            f"What version {base.version} was made from is gone: its embeddings, its catalogue or its model. Run its day, "
            f"{base.day}, again."
        )


def _last(config: Config, records: Records, live: Manifest) -> Run | None:
    """Return the newest refresh that ended, or that pushed the live version; None without one."""
    for name in reversed(records.run_ids(pipeline_name(config))):
        run = records.run(name)
        if run.run == live.run or run.state == "complete" or run.passed_over_for == UNCHANGED:
            return run
    return None


def _differences(config: Config, trained: Run) -> Any:
    assert trained.origin is not None
    before = trained.origin.configuration
    if _as_of_today(features.FeatureSpec, before.get("features")) != config.feature_spec():
        yield str(config.dataset / features.FILE_NAME)
    trainer = _as_of_today(TrainerSettings, before.get("trainer"))
    yield from (f"trainer.{name}" for name in TOWERS if getattr(trainer, name, None) != getattr(config.trainer, name))


def _as_of_today(declaration: type[Declaration], recorded: Any) -> Declaration | None:
    """Read what was recorded, which may lack keys that came later, with their defaults; None if that is no longer possible."""
    try:
        return declaration.model_validate(recorded)
    except ValueError:
        return None
