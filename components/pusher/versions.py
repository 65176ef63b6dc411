"""The push folder: every part of a model under one version, complete before it is visible.

    query_tower/VERSION/      what TF Serving watches, a folder a model
    item_tower/VERSION/
    manifests/VERSION.json    says that all parts of a version are there, and where they came from
    .staging/VERSION/         a version on its way; no server looks here
    .trash/VERSION/           a version on its way out

A version is made complete in `.staging`, its manifest last; then each part is moved to its place by a rename, and the
manifest after them. A push that was killed is either completed from there or, without a manifest, thrown away.

A version leaves in the reverse order: a rename takes its manifest to `.trash`, then each part. The manifest there says
that a removal has begun and of what, so one that was killed is completed, and parts without a manifest that are not of
ours (nobody's push, nobody's removal) are left alone.
"""

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import PurePosixPath

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.trainer.export import ITEM_TOWER, QUERY_TOWER
from schemas.errors import UserError

PARTS = (QUERY_TOWER, ITEM_TOWER)
MANIFESTS = "manifests"
MANIFEST = "manifest.json"
STAGING = ".staging"
TRASH = ".trash"
REVISIONS_A_DAY = 1000


@dataclass(frozen=True)
class Manifest:
    """What a version is.

    Attributes:
        version: `YYYYMMDDnnn`, the day and a revision from 1, so that a later day is a higher version and TF Serving's
            choice of the highest is right even when days are run out of order.
        day: the UTC day, ISO 8601.
        run: the pipeline run that pushed it.
        model: the URI of the Model artifact that all parts come from.
        parts: the folder of each part, relative to the push folder.
    """

    version: int
    day: str
    run: str
    model: str
    parts: dict[str, str]


class PushFolder:
    """A push folder on any file system that TFX's fileio knows.

    Args:
        root: its path; made when first pushed to.
    """

    def __init__(self, root: str) -> None:
        self.root = PurePosixPath(root)

    def manifests(self) -> list[Manifest]:
        """Every complete version, oldest first."""
        folder = str(self.root / MANIFESTS)
        if not fileio.exists(folder):
            return []
        names = [name for name in fileio.listdir(folder) if name.endswith(".json")]
        return sorted((self._read(self.root / MANIFESTS / name) for name in names), key=lambda m: m.version)

    def push(self, model: str, day: date, run: str) -> Manifest:
        """Makes the towers of a model visible as one new version; does nothing where they are the day's newest already.

        Args:
            model: the folder that holds a folder for each of PARTS.
            day: the run's UTC day.
            run: the pipeline run's id.
        """
        self.recover()
        for manifest in [each for each in self.manifests() if each.day == day.isoformat()][-1:]:
            if manifest.model == model and all(
                fileio.exists(str(self.root / part)) for part in manifest.parts.values()
            ):
                return manifest
        version = self._next_version(day)
        parts = {part: f"{part}/{version}" for part in PARTS}
        manifest = Manifest(version, day.isoformat(), run, model, parts)
        staged = self.root / STAGING / str(version)
        for part in PARTS:
            io_utils.copy_dir(f"{model}/{part}", str(staged / part))
        self._write(staged / MANIFEST, manifest)
        self._publish(manifest)
        return manifest

    def places(self, manifest: Manifest) -> dict[str, str]:
        """The full path of each part of a version."""
        return {part: str(self.root / place) for part, place in manifest.parts.items()}

    def retain(self, newest: int) -> list[int]:
        """Removes all but the newest versions; the highest, which TF Serving serves, is always one of those that stay.

        Args:
            newest: how many stay, at least 1.

        Returns:
            The versions that were removed, oldest first.

        Raises:
            ValueError: `newest` is less than 1.
        """
        if newest < 1:
            raise ValueError(f"newest: expected at least 1, received {newest}")
        self.recover()
        going = self.manifests()[:-newest]
        for manifest in going:
            self._remove(manifest)
        return [manifest.version for manifest in going]

    def recover(self) -> None:
        """Ends what was killed: completes a push that was complete in staging, throws any other away, completes removals."""
        for staged in self._folders(STAGING):
            if fileio.exists(str(staged / MANIFEST)):
                self._publish(self._read(staged / MANIFEST))
            else:
                fileio.rmtree(str(staged))
        for removed in self._folders(TRASH):
            if fileio.exists(str(removed / MANIFEST)):
                self._empty(self._read(removed / MANIFEST))
            else:  # nothing was taken from its place yet, or all of it was
                fileio.rmtree(str(removed))

    def _publish(self, manifest: Manifest) -> None:
        """Moves a complete version from staging to its places; safe to repeat after a crash at any point."""
        staged = self.root / STAGING / str(manifest.version)
        for part, place in manifest.parts.items():
            if fileio.exists(str(staged / part)):
                fileio.makedirs(str((self.root / place).parent))
                fileio.rename(str(staged / part), str(self.root / place))
        fileio.makedirs(str(self.root / MANIFESTS))
        fileio.rename(str(staged / MANIFEST), str(self._manifest_path(manifest)), overwrite=True)
        fileio.rmtree(str(staged))

    def _remove(self, manifest: Manifest) -> None:
        """Takes a complete version away. Its removal has begun once the manifest is in the trash; none is undone."""
        removed = self.root / TRASH / str(manifest.version)
        fileio.makedirs(str(removed))
        fileio.rename(str(self._manifest_path(manifest)), str(removed / MANIFEST))
        self._empty(manifest)

    def _empty(self, manifest: Manifest) -> None:
        """Takes the parts of a version whose manifest is in the trash there too, and deletes them; safe to repeat."""
        removed = self.root / TRASH / str(manifest.version)
        for part, place in manifest.parts.items():
            if fileio.exists(str(self.root / place)):
                fileio.rename(str(self.root / place), str(removed / part))
        fileio.rmtree(str(removed))

    def _folders(self, parent: str) -> list[PurePosixPath]:
        folder = self.root / parent
        if not fileio.exists(str(folder)):
            return []
        return [folder / name.rstrip("/") for name in fileio.listdir(str(folder))]

    def _manifest_path(self, manifest: Manifest) -> PurePosixPath:
        return self.root / MANIFESTS / f"{manifest.version}.json"

    def _next_version(self, day: date) -> int:
        first = int(f"{day:%Y%m%d}") * REVISIONS_A_DAY
        folders = [self.root / part for part in PARTS]
        names = [
            name.rstrip("/") for folder in folders if fileio.exists(str(folder)) for name in fileio.listdir(str(folder))
        ]
        versions = [int(name) for name in names if name.isdecimal()] + [m.version for m in self.manifests()]
        return max((v for v in versions if first <= v < first + REVISIONS_A_DAY), default=first) + 1

    def _read(self, path: PurePosixPath) -> Manifest:
        try:
            return Manifest(**json.loads(io_utils.read_string_file(str(path))))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: expected a version's manifest, found something else: {error}. Move it away."
            ) from error

    def _write(self, path: PurePosixPath, manifest: Manifest) -> None:
        unfinished = f"{path}.unfinished"
        io_utils.write_string_file(unfinished, json.dumps(asdict(manifest), indent=2, sort_keys=True))
        fileio.rename(unfinished, str(path), overwrite=True)
