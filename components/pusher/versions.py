"""The push folder: every part of a model under one version, complete before it is visible.

    query_tower/VERSION/      what TF Serving watches, a folder a model
    item_tower/VERSION/
    retriever/VERSION/
    index/VERSION/            for those who run a vector service of their own
    manifests/VERSION.json    says that all parts of a version are there, what they hold, and where they came from
    .staging/VERSION/         a version on its way; no server looks here
    .trash/VERSION/           a version on its way out

A version is made complete in `.staging` and checked there against what was read, its manifest last; then each part is
moved to its place (see `components.pusher.files.move`), and the manifest after them. A push that was killed is either
completed from there or, without a manifest, thrown away.

A version leaves in the reverse order: a rename takes its manifest to `.trash`, then its parts go. The manifest there says
that a removal has begun and of what, so one that was killed is completed, and parts without a manifest that are not of
ours (nobody's push, nobody's removal) are left alone.

A rollback is a push too: of an earlier version's content, under a new number. Numbers only grow, as servers take the highest. So is
a refresh: the live version's towers over a newer catalogue.
"""

import logging
import posixpath
import re
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path

import tensorflow as tf
from pydantic import ValidationError
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.pusher import files
from components.pusher.files import Source
from components.pusher.manifest import REVISIONS_A_DAY, Digest, Manifest, find, staying
from components.whole_files import write_whole
from schemas.errors import UserError

MANIFESTS = "manifests"
MANIFEST = "manifest.json"
STAGING = ".staging"
TRASH = ".trash"
VERSION_FILE = re.compile(r"\d{11}\.json")
_log = logging.getLogger(__name__)


class PushFolder:
    """A push folder on any file system that TFX's fileio knows.

    Args:
        root: its path or address; made when first pushed to.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._reported: set[str] = set()

    def manifests(self) -> list[Manifest]:
        """Every complete version, oldest first; the last is live. A file that is no manifest is passed over, and logged once.

        Raises:
            UserError: the folder cannot be used.
        """
        return self._listed()[0]

    def unreadable(self) -> list[str]:
        """List the files that are named like a manifest and cannot be read as one.

        Raises:
            UserError: the folder cannot be used.
        """
        return [path for path in self._listed()[1] if VERSION_FILE.fullmatch(posixpath.basename(path))]

    def push(
        self, sources: Mapping[str, Source], day: date, run: str, model: str, metrics: Mapping[str, float]
    ) -> Manifest:
        """Publish all parts as one new version; do nothing if they equal what a run pushed last for the day.

        What was refreshed since stays refreshed: the same model with its first catalogue would be older than what is live.

        Args:
            sources: where each part comes from.
            day: the run's UTC day.
            run: the pipeline run's id.
            model: the URI of the Model artifact that the towers come from.
            metrics: what the model reached.

        Raises:
            UserError: a part is missing, was not copied whole, or the day has no revision left.
        """
        self.recover()
        manifests = self.manifests()
        for last in [earlier for earlier in manifests if earlier.day == day.isoformat() and earlier.is_trained][-1:]:
            if last.model == model and last.files == _digests(sources) and not self.verify(last.version):
                return last
        version = self._next_version(int(f"{day:%Y%m%d}"), [*sources])
        manifest = Manifest(
            version=version,
            day=day.isoformat(),
            run=run,
            model=model,
            parts=_parts(version, sources),
            metrics={**metrics},
        )
        return self._release(manifest, sources)

    def refresh(self, sources: Mapping[str, Source], base: int, run: str) -> Manifest:
        """Push a refresh of the live version; do nothing if these parts are pushed already.

        Args:
            sources: where each part comes from.
            base: the version that is refreshed; the day, the model and the metrics are its own.
            run: the id of the run that made the parts.

        Raises:
            UserError: another version is live by now; a part is missing, was not copied whole, or the day has no revision left.
        """
        self.recover()
        manifests = self.manifests()
        for last in [earlier for earlier in manifests if earlier.refreshes == base and earlier.restores is None][-1:]:
            if last.files == _digests(sources) and not self.verify(last.version):
                return last
        live = manifests[-1] if manifests else None
        if live is None or live.version != base:
            actual = f"version {live.version}" if live else "nothing"
            raise UserError(
                f"{self.root}: expected version {base}, which was to be refreshed, to be live, found {actual}. Nothing was pushed. "
                "Refresh again."
            )
        version = self._next_version(base // REVISIONS_A_DAY, [*sources])
        refreshed = {"version": version, "run": run, "parts": _parts(version, sources), "restores": None}
        of_model = {"refreshes": base, "model_run": live.trained_by}
        return self._release(live.model_copy(update={**refreshed, **of_model}), sources)

    def restore(self, source: Manifest) -> Manifest:
        """Make the content of a version live again, under a number above the live one's.

        Args:
            source: one of the versions that are here, whole (see `verify`).

        Raises:
            UserError: it was not copied whole, or the live version's day has no revision left.
        """
        live = self.manifests()[-1]
        version = self._next_version(live.version // REVISIONS_A_DAY, [*source.parts])
        restored = {"version": version, "parts": _parts(version, source.parts), "restores": source.content}
        places = {component: Source(place) for component, place in self.places(source).items()}
        return self._release(source.model_copy(update=restored), places)

    def adopt(self, manifest: Manifest, sources: Mapping[str, Source]) -> None:
        """Publish a version of another push folder, under its number.

        Args:
            manifest: the version's, in the other folder.
            sources: where each part lies.

        Raises:
            UserError: a part is missing, was not copied whole, or has another content than the manifest says.
        """
        self._release(manifest, sources, manifest.files)

    def remove(self, versions: Collection[int]) -> list[int]:
        """Remove versions.

        Returns:
            Those that were there, oldest first.
        """
        going = [candidate for candidate in self.manifests() if candidate.version in versions]
        for manifest in going:
            self._remove(manifest)
        return [manifest.version for manifest in going]

    def places(self, manifest: Manifest) -> dict[str, str]:
        """Return the full path of each part of a version."""
        return {component: self._path(place) for component, place in manifest.parts.items()}

    def verify(self, version: int, components: Collection[str] | None = None) -> list[str]:
        """Read every file of a version again.

        Args:
            version: its number.
            components: the parts to read; None for all.

        Returns:
            A sentence for each that is not as it was pushed; none where the version is whole. Of one that older code pushed,
            only whether its parts are there.

        Raises:
            UserError: there is no such version.
        """
        manifest = find(self.manifests(), version)
        faults = []
        for component, place in manifest.parts.items():
            if components is not None and component not in components:
                continue
            if not files.exists(self._path(place)):
                faults.append(f"{place} is missing")
            elif manifest.files:
                actual = files.digests(Source(self._path(place)))
                faults += [f"{place}/{sentence}" for sentence in files.differences(manifest.files[component], actual)]
        return faults

    def retain(self, days: int, labelled: Collection[int] = ()) -> list[int]:
        """Remove all but the newest versions; the highest, which is live, always stays.

        What a rollback brought back may go: the rollback has a copy of its own.

        Args:
            days: of how many of the newest days a version stays, at least 1; see `components.pusher.manifest.staying`.
            labelled: versions that stay besides; see `components.pusher.labels`.

        Returns:
            The versions that were removed, oldest first.

        Raises:
            ValueError: `days` is less than 1.
        """
        self.recover()
        manifests = self.manifests()
        retained = staying(manifests, days, labelled)
        return self.remove({manifest.version for manifest in manifests if manifest not in retained})

    def recover(self) -> list[Manifest]:
        """Finish what was killed: complete a push that was complete in staging, discard any other, complete removals.

        Returns:
            The versions whose push was completed.
        """
        staged = self._folders(STAGING)
        for folder in staged.values():
            if fileio.exists(posixpath.join(folder, MANIFEST)):
                self._publish(self._read(posixpath.join(folder, MANIFEST)))
            else:  # not complete yet; or visible already, and only this folder is left of it
                fileio.rmtree(folder)
        for folder in self._folders(TRASH).values():
            if fileio.exists(posixpath.join(folder, MANIFEST)):
                self._empty(self._read(posixpath.join(folder, MANIFEST)))
            else:  # nothing was taken from its place yet, or all of it was
                fileio.rmtree(folder)
        return [manifest for manifest in self.manifests() if str(manifest.version) in staged] if staged else []

    def _release(
        self,
        manifest: Manifest,
        sources: Mapping[str, Source],
        expected: Mapping[str, Mapping[str, Digest]] | None = None,
    ) -> Manifest:
        """Stage a version, check that it is whole, and of the expected content if one is given, and make it visible."""
        staged = self._path(STAGING, str(manifest.version))
        read: dict[str, dict[str, Digest]] = {}
        for component, source in sources.items():
            copied = posixpath.join(staged, component)
            read[component] = files.copy(source, copied)
            if faults := files.differences(read[component], files.digests(Source(copied))):
                raise UserError(
                    f"{copied}: expected what {source.folder} holds, but {'; '.join(faults)}. Nothing was pushed. See to "
                    "the disk or the network, and run the same command again."
                )
            if expected and (faults := files.differences(expected.get(component, {}), read[component])):
                raise UserError(
                    f"{source.folder}: expected what was pushed, but {'; '.join(faults)}. Nothing was copied. Push again."
                )
        complete = manifest.model_copy(update={"files": read})
        write_whole(posixpath.join(staged, MANIFEST), complete.model_dump_json(indent=2).encode())
        self._publish(complete)
        return complete

    def _publish(self, manifest: Manifest) -> None:
        """Move a complete version from staging to its places; safe to repeat after a crash at any point."""
        staged = self._path(STAGING, str(manifest.version))
        for component, place in manifest.parts.items():
            if fileio.exists(posixpath.join(staged, component)):
                files.move(posixpath.join(staged, component), self._path(place))
        fileio.makedirs(self._path(MANIFESTS))
        fileio.rename(posixpath.join(staged, MANIFEST), self._manifest_path(manifest), overwrite=True)
        io_utils.delete_dir(staged)  # an object store may have no empty folders

    def _remove(self, manifest: Manifest) -> None:
        """Remove a complete version. The removal begins when the manifest is in the trash; it is never undone."""
        removed = self._path(TRASH, str(manifest.version))
        fileio.makedirs(removed)
        fileio.rename(self._manifest_path(manifest), posixpath.join(removed, MANIFEST))
        self._empty(manifest)

    def _empty(self, manifest: Manifest) -> None:
        """Remove the parts of a version whose manifest is in the trash; safe to repeat."""
        removed = self._path(TRASH, str(manifest.version))
        for component, place in manifest.parts.items():
            if fileio.exists(self._path(place)):
                files.take_away(self._path(place), posixpath.join(removed, component))
        fileio.rmtree(removed)

    def _listed(self) -> tuple[list[Manifest], list[str]]:
        """Return the manifests, oldest first, and the paths of unreadable ones."""
        folder = self._path(MANIFESTS)
        manifests, odd = [], []
        for name in sorted(fileio.listdir(folder)) if files.exists(folder) else []:
            if not name.endswith(".json"):
                continue
            try:
                manifests.append(self._read(posixpath.join(folder, name)))
            except UserError as error:
                odd.append(posixpath.join(folder, name))
                if name not in self._reported:
                    self._reported.add(name)
                    _log.error("%s", error)
        return sorted(manifests, key=lambda manifest: manifest.version), odd

    def _path(self, *segments: str) -> str:
        return posixpath.join(self.root, *segments)  # pathlib would make one slash of the two of an address

    def _folders(self, parent: str) -> dict[str, str]:
        """By name, the folders in one of the root's."""
        folder = self._path(parent)
        names = [name.rstrip("/") for name in fileio.listdir(folder)] if files.exists(folder) else []
        return {name: posixpath.join(folder, name) for name in names}

    def _manifest_path(self, manifest: Manifest) -> str:
        return self._path(MANIFESTS, f"{manifest.version}.json")

    def _next_version(self, day: int, components: list[str]) -> int:
        """Return the next revision of a day, above all existing ones.

        Args:
            day: as YYYYMMDD.
            components: those of the version.
        """
        first = day * REVISIONS_A_DAY
        names = [name for component in components for name in self._folders(component)]
        versions = [int(name) for name in names if name.isdecimal()] + [m.version for m in self.manifests()]
        version = max((v for v in versions if first <= v < first + REVISIONS_A_DAY), default=first) + 1
        if version == first + REVISIONS_A_DAY:
            raise UserError(
                f"{self.root}: expected at most {REVISIONS_A_DAY - 1} versions of a day, and {day} has had them all. Push the day "
                "after it, or to another folder: --set pusher.destination=DIR."
            )
        return version

    def _read(self, path: str) -> Manifest:
        name = posixpath.basename(path)
        try:
            if "://" not in path and not Path(path).is_file():  # a FIFO would be waited for
                raise ValueError("it is no file")
            manifest = Manifest.model_validate_json(io_utils.read_string_file(path))
            if name not in (MANIFEST, f"{manifest.version}.json"):
                raise ValueError(f"expected the name of version {manifest.version}, found {name}")
            return manifest
        except (ValueError, OSError, tf.errors.OpError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise UserError(
                f"{path}: expected a version's manifest, found something else: {reason}. Move it away."
            ) from error


def _parts(version: int, names: Mapping[str, object]) -> dict[str, str]:
    return {name: f"{name}/{version}" for name in names}


def _digests(sources: Mapping[str, Source]) -> dict[str, dict[str, Digest]]:
    return {component: files.digests(source) for component, source in sources.items()}
