"""Takes a version back that turned out bad: what was live before it is pushed again, under a higher number."""

from dataclasses import dataclass

from components.pusher import labels
from components.pusher.manifest import Manifest, rollback_source, withdrawn_by
from components.pusher.versions import PushFolder
from pipeline import store
from pipeline.config import Config
from pipeline.metadata import Records
from schemas.errors import UserError


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        live: the new version.
        instead_of: the version that was live before.
        withdrawn: the versions whose content was taken back, oldest first.
            Those that have the model of what is live now, over another catalogue, took no model along.
        unknown: those of them whose models ML Metadata does not know; no day goes on from these anyway.
    """

    live: Manifest
    instead_of: Manifest
    withdrawn: list[Manifest]
    unknown: list[Manifest]


def roll_back(config: Config, to: int | None) -> RolledBack:
    """Make the content of an earlier version live again. After a kill at any point, the same call completes it, once.

    Labels of versions that are taken back move to the version that is gone back to, as its content is what becomes live.
    The models that are taken back are marked so in ML Metadata: no day goes on from them, nor is compared with them, and a day
    that went on from one counts as changed. The day of such a model itself is done as before, and running it again pushes
    nothing until its data, its configuration or the code gives it another model. A rollback to it lifts the mark.

    Args:
        config: where everything is. Nothing may run there: the caller holds the root's lock.
        to: the version to go back to; None for the one in force before what is live.

    Raises:
        UserError: there is no such version, or it is not whole. Nothing was changed.
    """
    folder = PushFolder(config.serving)
    completed = [each for each in folder.recover() if each.restores is not None and to in (None, each.restores)]
    known = folder.manifests()
    if completed:
        before = [each for each in known if each.version < completed[-1].version]
        return RolledBack(completed[-1], before[-1], *_mark(config, completed[-1], before))
    source = rollback_source(known, to)
    if faults := folder.verify(source.version):
        raise UserError(
            f"{config.serving}: expected version {source.version} as it was pushed, but {'; '.join(faults)}. Nothing was changed. "
            "Name another: --to VERSION."
        )
    labels.move(folder, {each.content for each in withdrawn_by(source, known)}, source.version)
    # Marked first: if it ends between the two, the same command still finds the bad version live, and takes it back.
    withdrawn, unknown = _mark(config, source, known)
    return RolledBack(folder.restore(source), known[-1], withdrawn, unknown)


def _mark(config: Config, restored: Manifest, before: list[Manifest]) -> tuple[list[Manifest], list[Manifest]]:
    """Mark the withdrawn models; return their versions, and those of models that ML Metadata does not know."""
    withdrawn = withdrawn_by(restored, before)
    if not store.has_begun(config):
        return withdrawn, withdrawn
    records = Records(store.connection(config))
    others = [each for each in withdrawn if each.model != restored.model]
    unknown = [each for each in others if not records.note_withdrawn(each.model, True)]
    records.note_withdrawn(restored.model, False)
    return withdrawn, unknown
