"""The push folder: every part of a model under one version, complete before it is visible.

    query_tower/VERSION/      what TF Serving watches, a folder a model
    item_tower/VERSION/
    manifests/VERSION.json    says that all parts of a version are there, and where they came from
    .staging/VERSION/         a version on its way; no server looks here

A version is made complete in `.staging`, its manifest last; then each part is moved to its place by a rename, and the
manifest after them. A push that was killed is either completed from there or, without a manifest, thrown away.
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
STAGING = ".staging"
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
        """Makes the towers of a model visible as one new version; does nothing where they are already.

        Args:
            model: the folder that holds a folder for each of PARTS.
            day: the run's UTC day.
            run: the pipeline run's id.
        """
        self.recover()
        for manifest in self.manifests():
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
        self._write(staged / "manifest.json", manifest)
        self._publish(manifest)
        return manifest

    def places(self, manifest: Manifest) -> dict[str, str]:
        """The full path of each part of a version."""
        return {part: str(self.root / place) for part, place in manifest.parts.items()}

    def recover(self) -> None:
        """Ends what a killed push began: completes it where it was complete in staging, else throws it away."""
        staging = self.root / STAGING
        if not fileio.exists(str(staging)):
            return
        for name in fileio.listdir(str(staging)):
            staged = staging / name.rstrip("/")
            if fileio.exists(str(staged / "manifest.json")):
                self._publish(self._read(staged / "manifest.json"))
            else:
                fileio.rmtree(str(staged))

    def _publish(self, manifest: Manifest) -> None:
        """Moves a complete version from staging to its places; safe to repeat after a crash at any point."""
        staged = self.root / STAGING / str(manifest.version)
        for part, place in manifest.parts.items():
            if fileio.exists(str(staged / part)):
                fileio.makedirs(str((self.root / place).parent))
                fileio.rename(str(staged / part), str(self.root / place))
        fileio.makedirs(str(self.root / MANIFESTS))
        fileio.rename(
            str(staged / "manifest.json"), str(self.root / MANIFESTS / f"{manifest.version}.json"), overwrite=True
        )
        fileio.rmtree(str(staged))

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
