"""Removes from the disk what no later run needs. ML Metadata keeps the record of every run.

An artifact is marked deleted in ML Metadata before its folder is removed. From then on TFX neither returns it from its cache nor
resolves it as an input; in the other order, a resolver could return a folder that no longer exists.
"""

import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import recorded
from pipeline.config import Config
from pipeline.records import REFRESH, RUN_CONTEXT, Store, connection, values_of

if TYPE_CHECKING:
    from components.pusher.manifest import Manifest

SYSTEM = ".system"  # TFX's scratch, a folder a node: of use to a running execution only
BLESSING = "ModelBlessing"


@dataclass(frozen=True)
class Collected:
    """What was removed.

    Attributes:
        artifacts: the number of artifacts that were marked deleted.
        bytes: the size of the files that were removed below the pipeline root.
        versions: the pushed versions that were removed, oldest first.
        unreadable: the manifests that could not be read, for which nothing was removed, because their needs are unknown.
    """

    artifacts: int = 0
    bytes: int = 0
    versions: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def collect(config: Config) -> Collected:
    """Remove what neither a later run nor a served version needs. Safe to repeat after a kill at any point.

    All artifacts that these runs made or used stay; days and the newest model are counted for each pipeline separately:

    - the runs of the newest `days` days, including failed ones, but not refreshes, because a day may have many;
    - the run that was started last, whatever its day: a day that is run again continues from the one before, however old;
    - the runs that made or pushed a version that stays, such as one that has a label;
    - the runs that made the newest blessed model that was not rolled back: the next day continues from it and has to beat it.

    Below the pipeline root it removes all other folders of artifacts, those of killed executions, and TFX's scratch; anything
    else (checkpoints of an interrupted training) once it is older than the oldest day that stays. Outside the pipeline root it only
    changes the push folder, see `PushFolder.retain`.

    Args:
        config: the configuration. Nothing else may run in its root: the caller holds the lock.
    """
    from components.pusher import labels, manifest  # imports TFX
    from components.pusher.versions import PushFolder

    folder = PushFolder(config.serving)
    folder.recover()
    if unreadable := folder.unreadable():
        return Collected(unreadable=unreadable)
    labelled = set(labels.read(folder).values())
    staying = manifest.staying(folder.manifests(), config.retention.versions, labelled)
    history = _History(Store(connection(config)))
    newest = history.runs_of_newest_days(config.retention.days)
    if not newest:  # ML Metadata was moved away, so what is needed is unknown
        return Collected()
    runs = newest | history.last_runs() | history.runs_behind(staying) | history.runs_behind_newest_blessed()
    root = Path(os.path.realpath(config.pipeline_root))
    marked = history.mark_deleted(root, needed=history.artifacts_of(runs))
    removable = _Removable(root, [*history.live_places(), *(version.model for version in staying)])
    folders = _folders(root, before=history.started(newest))
    removed = sum(_remove(path) for path in removable.among([*folders, *history.deleted_places()]))
    return Collected(marked, removed, folder.retain(config.retention.versions, labelled))


class _History:
    """ML Metadata's runs and artifacts as they were at the start, except for what is marked here.

    A run is identified by the id of its context.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs = {context.id: context for context in store.get_contexts_by_type(RUN_CONTEXT)}
        self._by_pipeline: dict[str, list[int]] = defaultdict(list)
        for run in self._runs:
            pipelines = store.get_parent_contexts_by_context(run)
            self._by_pipeline[pipelines[0].name if pipelines else ""].append(run)
        self._artifacts = {artifact.id: artifact for artifact in store.get_artifacts()}
        self._types = {kind.id: kind.name for kind in store.get_artifact_types()}

    def started(self, runs: Iterable[int]) -> float:
        """Return the start of the first of them, in seconds since 1970-01-01 UTC."""
        milliseconds: int = min(self._runs[run].create_time_since_epoch for run in runs)
        return milliseconds / 1000

    def runs_of_newest_days(self, days: int) -> set[int]:
        newest_runs = set()
        for runs in self._by_pipeline.values():
            of_days = [run for run in runs if not self._is_refresh(run)]
            newest = sorted({self._day(run) for run in of_days})[-days:]
            newest_runs |= {run for run in of_days if self._day(run) in newest}
        return newest_runs

    def last_runs(self) -> set[int]:
        return {max(runs) for runs in self._by_pipeline.values()}

    def runs_behind(self, manifests: Sequence["Manifest"]) -> set[int]:
        """Return the runs that pushed versions, and those that made their models."""
        pushers = {manifest.run for manifest in manifests}
        models = [_real(manifest.model) for manifest in manifests]  # a folder of the artifact's
        sources = [a.id for a in self._live() if any(model.is_relative_to(_real(a.uri)) for model in models)]
        return {run for run, context in self._runs.items() if context.name in pushers} | self._makers(sources)

    def runs_behind_newest_blessed(self) -> set[int]:
        """Return the runs that made and blessed the newest blessed model of each pipeline."""
        newest: dict[str, tuple[str, int, set[int]]] = {}
        for blessing in self._live():
            properties = values_of(blessing) if self._types[blessing.type_id] == BLESSING else {}
            if properties.get(recorded.BLESSED) != 1 or properties.get(recorded.WITHDRAWN):
                continue
            model = self._artifacts.get(properties.get(recorded.BLESSED_MODEL, 0))
            if model is None or model.state != mlmd.Artifact.LIVE:
                continue
            makers = self._makers([model.id])
            for pipeline, runs in self._by_pipeline.items():
                pipeline_makers = makers & set(runs)
                if pipeline_makers:
                    candidate = (max(self._day(run) for run in pipeline_makers), model.id, pipeline_makers)
                    newest[pipeline] = max(newest.get(pipeline, candidate), candidate, key=lambda c: c[:2])
        return {run for _, _, makers in newest.values() for run in makers}

    def artifacts_of(self, runs: Iterable[int]) -> set[int]:
        """Return the artifacts that runs made or used."""
        return {artifact.id for run in runs for artifact in self._store.get_artifacts_by_context(run)}

    def mark_deleted(self, root: Path, needed: set[int]) -> int:
        """Mark unneeded artifacts below the root as deleted, in one transaction, and return their number.

        The others are not written: TFX's cache asks for inputs that are the same to the byte, time of update included.
        """
        going = [a for a in self._live() if a.id not in needed and root in _real(a.uri).parents]
        for artifact in going:
            artifact.state = mlmd.Artifact.DELETED
        if going:
            self._store.put_artifacts(going)
        return len(going)

    def live_places(self) -> list[str]:
        return [artifact.uri for artifact in self._live()]

    def deleted_places(self) -> list[Path]:
        """Return the existing paths of deleted artifacts, marked now or by a call that was killed before it could remove them."""
        deleted = [a.uri for a in self._artifacts.values() if a.state == mlmd.Artifact.DELETED]
        return [_real(uri) for uri in deleted if os.path.lexists(uri)]

    def _live(self) -> list[mlmd.Artifact]:
        return [a for a in self._artifacts.values() if a.state == mlmd.Artifact.LIVE and a.uri]

    def _makers(self, artifacts: Sequence[int]) -> set[int]:
        """Return the runs that output artifacts: made there, or taken from the cache."""
        if not artifacts:
            return set()
        events = self._store.get_events_by_artifact_ids(artifacts)
        executions = {event.execution_id for event in events if event.type == mlmd.Event.OUTPUT}
        contexts = {c.id for execution in executions for c in self._store.get_contexts_by_execution(execution)}
        return contexts & self._runs.keys()

    def _is_refresh(self, run: int) -> bool:
        name: str = self._runs[run].name
        return name.partition(".")[2].startswith(REFRESH)

    def _day(self, run: int) -> str:
        name: str = self._runs[run].name
        return name.partition(".")[0]


class _Removable:
    """Chooses the paths that may be removed: strictly below a root, and neither the same as, above nor below a path that stays.

    Args:
        root: without symbolic links.
        staying: paths, spelled in any way.
    """

    def __init__(self, root: Path, staying: Iterable[str]) -> None:
        self._root = root
        self._staying = {_real(path) for path in staying}
        self._holding = {parent for path in self._staying for parent in path.parents}

    def among(self, paths: Iterable[Path]) -> Iterator[Path]:
        for path in paths:
            up = {path, *path.parents}
            if self._root in path.parents and not up & self._staying and path not in self._holding:
                yield path


def _folders(root: Path, before: float) -> Iterator[Path]:
    """Yield TFX's scratch, the folders `<node>/<output>/<execution>`, and their older siblings.

    Args:
        root: the pipeline root.
        before: in seconds since 1970-01-01 UTC.
    """
    for node in _subfolders(root):
        for output in _subfolders(node):
            if output.name == SYSTEM:
                yield output
                continue
            for folder in _subfolders(output):
                if folder.name.isdecimal() or _newest_change(folder) < before:
                    yield folder


def _subfolders(folder: Path) -> list[Path]:
    """Return the subfolders without symbolic links, which may lead elsewhere."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield the status of a file, or of a folder and everything below it."""
    yield path.lstat()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            yield Path(folder, name).lstat()


def _newest_change(path: Path) -> float:
    return max(status.st_mtime for status in _files(path))


def _remove(path: Path) -> int:
    """Remove a file or folder, if it exists, and return the size of its files in bytes."""
    if not os.path.lexists(path):
        return 0
    size = sum(status.st_size for status in _files(path) if not stat.S_ISDIR(status.st_mode))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return size


def _real(path: str) -> Path:
    """Resolve symbolic links and `..`, because a root may be named in several ways."""
    return Path(os.path.realpath(path))
