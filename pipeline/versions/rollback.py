"""Rolls back a bad version: the content of an earlier one is pushed again, under a higher number."""

from dataclasses import dataclass

from components.pusher import labels
from components.pusher.manifest import Manifest, rollback_source, withdrawn_by
from components.pusher.versions import PushFolder
from pipeline.config import Config
from pipeline.records import Records, connection, has_begun
from schemas.errors import UserError


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        live: the new version.
        instead_of: the version that was live before.
        withdrawn: the versions whose content was rolled back, oldest first. The model of one that has the live model, over another
            catalogue, is not withdrawn.
        unknown: those of them whose models ML Metadata does not know; no day continues from these in any case.
    """

    live: Manifest
    instead_of: Manifest
    withdrawn: list[Manifest]
    unknown: list[Manifest]


def roll_back(config: Config, to: int | None) -> RolledBack:
    """Make the content of an earlier version live again. After a kill at any point, the same call completes it, once.

    Labels of versions that are rolled back move to the version whose content becomes live.
    ML Metadata records the withdrawn models: no day continues from them or is compared with them, and a day
    that continued from one counts as changed. The day of a withdrawn model itself stays done; running it again pushes
    nothing until its data, its configuration or the code gives it another model. A rollback to it removes the mark.

    Args:
        config: the configuration. Nothing else may run in its root: the caller holds the lock.
        to: the version to restore; None for the one in force before the live one.

    Raises:
        UserError: there is no such version, or its files are damaged. Nothing was changed.
    """
    folder = PushFolder(config.serving)
    completed = [
        manifest for manifest in folder.recover() if manifest.restores is not None and to in (None, manifest.restores)
    ]
    manifests = folder.manifests()
    if completed:
        before = [manifest for manifest in manifests if manifest.version < completed[-1].version]
        return RolledBack(completed[-1], before[-1], *_mark(config, completed[-1], before))
    source = rollback_source(manifests, to)
    if faults := folder.verify(source.version):
        raise UserError(
            f"{config.serving}: expected version {source.version} as it was pushed, but {'; '.join(faults)}. Nothing was changed. "
            "Name another: --to VERSION."
        )
    labels.move(folder, {manifest.content for manifest in withdrawn_by(source, manifests)}, source.version)
    # Marked first: if the process ends in between, the same command still finds the bad version live, and rolls it back.
    withdrawn, unknown = _mark(config, source, manifests)
    return RolledBack(folder.restore(source), manifests[-1], withdrawn, unknown)


def _mark(config: Config, restored: Manifest, before: list[Manifest]) -> tuple[list[Manifest], list[Manifest]]:
    """Mark the withdrawn models; return their versions, and those of models that ML Metadata does not know."""
    withdrawn = withdrawn_by(restored, before)
    if not has_begun(config):
        return withdrawn, withdrawn
    records = Records(connection(config))
    others = [manifest for manifest in withdrawn if manifest.model != restored.model]
    unknown = [manifest for manifest in others if not records.note_withdrawn(manifest.model, True)]
    records.note_withdrawn(restored.model, False)
    return withdrawn, unknown
