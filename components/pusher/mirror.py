"""Mirrors a push folder into a folder of this machine, for servers that cannot read where it is, as TF Serving cannot read s3."""

import posixpath
from dataclasses import dataclass, field

from components.pusher import labels, tf_serving
from components.pusher.files import Source
from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder
from schemas.errors import UserError


@dataclass(frozen=True)
class Mirrored:
    """What a pass changed.

    Attributes:
        copied: the versions that came.
        removed: the versions that went.
        labels: all labels, by name the version; None if they are as they were.
    """

    copied: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    labels: dict[str, int] | None = None


def mirror(source: PushFolder, target: PushFolder) -> Mirrored:
    """Copy the versions that servers serve: the newest, and those with a label; then remove others.

    A version is visible once all of it is there, with the checksums of its manifest. The newest versions are those with the highest
    numbers, so a rollback comes as the version that it is.

    Args:
        source: the push folder; not changed.
        target: a folder of this machine, which nobody else writes to.

    Raises:
        UserError: nothing was pushed to the source, it cannot be read, or a file has another content than the manifest says. What
            was complete before stays.
    """
    target.recover()
    pushed, assigned = source.manifests(), labels.read(source)
    if not pushed:
        raise UserError(f"{source.root}: expected a pushed version, found none.")
    newest = {manifest.version for manifest in pushed[-tf_serving.KEPT_VERSIONS :]}
    wanted = {manifest.version: manifest for manifest in pushed if manifest.version in {*newest, *assigned.values()}}
    here = {manifest.version for manifest in target.manifests()}
    copied = sorted(wanted.keys() - here)
    for version in copied:
        labels.configure(target, wanted[version].parts)  # before the version is visible, as the Pusher does
        target.adopt(wanted[version], _sources(source, wanted[version]))
    present = {label: version for label, version in assigned.items() if version in wanted}
    is_other = present != labels.read(target)
    if is_other:
        labels.replace(target, present)
    removed = target.remove(here - wanted.keys())
    return Mirrored(copied, removed, present if is_other else None)


def _sources(folder: PushFolder, manifest: Manifest) -> dict[str, Source]:
    """Return where each part of a version is, and the names that its manifest lists; none are listed by older code."""
    return {
        component: Source(posixpath.join(folder.root, place), tuple(manifest.files.get(component, ())) or None)
        for component, place in manifest.parts.items()
    }
