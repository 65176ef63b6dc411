"""Decides which versions are served: watches the push folder, and makes a version live once it is completely loaded."""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc

from components.pusher import tf_serving
from components.pusher.tf_serving import KEPT_VERSIONS
from ndr_client.manifests import Manifests, Pushed
from ndr_client.served import MODELS, is_of_shard
from serving.errors import invalid, not_found
from serving.servable import Servable

FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds between two attempts to load the same files
MOST_STATES = 16  # of versions that came and went
MOST_FAULTS = 5  # of a version, in a message
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """How far a version of a model has come.

    Attributes:
        name: LOADING, AVAILABLE, UNLOADING or END, as TF Serving has them.
        code: OK, or why it came to its end.
        message: that in words.
    """

    name: str
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


@dataclass(frozen=True)
class _Failure:
    """A version that could not be loaded: its files then, the attempts so far, when the next is due, and the reason."""

    files: object
    attempts: int
    next_try: float
    reason: str


class Versions:
    """The versions that are served.

    All models of a version become live at once. If a version cannot be loaded, the one before it stays live, and loading is
    retried: at once when its files change, else after a doubling wait, because the missing resource (memory, file descriptors, a
    network disk) may become available. If a live version is removed from the folder, the one before it becomes live. Versions
    with a label in the folder's models.config are served besides the newest.

    Args:
        push_folder: see `components.pusher.versions`.
        load: takes a model's name, version and folder, and raises where the model cannot be loaded.
        clock: gives monotonic seconds.
        observe_load: is told of each attempt whether it succeeded, and its seconds.
        shard: the shard whose retriever is served; None for all retrievers of a version.
    """

    def __init__(
        self,
        push_folder: Path,
        load: Callable[[str, int, Path], Servable],
        clock: Callable[[], float] = time.monotonic,
        observe_load: Callable[[bool, float], None] = lambda succeeded, seconds: None,
        shard: int | None = None,
    ) -> None:
        self._shard = shard
        self._manifests = Manifests(push_folder)
        self._config = push_folder / tf_serving.MODEL_CONFIG
        self._config_text = self._config_fault = ""
        self._configured_labels: dict[str, int] = {}
        self._labels: dict[str, int] = {}
        self._load = load
        self._clock = clock
        self.observe_load = observe_load
        self.observe_live: Callable[[int], None] = lambda version: None  # is told each version that becomes live
        self._last_live: int | None = None
        self._pushed_at: dict[int, float] = {}
        self._served: dict[int, dict[str, Servable]] = {}  # never changed, only replaced: a request sees one of them
        self._failures: dict[int, _Failure] = {}
        self._states: dict[str, dict[int, State]] = {}
        self._states_lock = threading.Lock()
        self._reading = threading.Lock()
        self._newest: int | None = None
        self._stale_since: float | None = None

    @property
    def live(self) -> int | None:
        """The version for requests that name none; None before the first is loaded."""
        return max(self._served, default=None)

    @property
    def newest(self) -> int | None:
        """The highest version in the push folder when last read; None before the first push."""
        return self._newest

    @property
    def stale_seconds(self) -> float:
        """How long a newer version than the live one has been in the push folder; 0 if the live one is the newest."""
        since = self._stale_since
        return 0.0 if since is None else self._clock() - since

    @property
    def fault(self) -> str | None:
        """Why the last attempt to load the newest version failed; None if it was not tried or is loaded."""
        failure = self._failures.get(self._newest or 0)
        return failure.reason if failure else None

    @property
    def live_pushed_at(self) -> float | None:
        """When the live version was pushed, in seconds since 1970; None before the first is loaded."""
        live = self.live
        return None if live is None else self._pushed_at.get(live)

    def waiting(self) -> dict[str, dict[str, int]]:
        """Map models and signatures of the live version to the number of waiting requests."""
        served = self._served
        return {name: servable.waiting for name, servable in served[max(served)].items()} if served else {}

    def get(self, model: str, version: int | None) -> Servable:
        """Return the model that answers a request.

        Args:
            model: its name.
            version: its number; None for the highest loaded one.

        Raises:
            RequestError: NOT_FOUND.
        """
        served = self._served
        numbers = [number for number, models in served.items() if model in models and version in (None, number)]
        if not numbers:
            wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        return served[max(numbers)][model]

    def labelled(self, label: str) -> int:
        """Return the version with a label.

        Raises:
            RequestError: INVALID_ARGUMENT, no version has it.
        """
        version = self._labels.get(label)
        if version is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return version

    def states(self, model: str) -> dict[int, State]:
        """Return the state of each version of a model, the newest first; empty for an unknown model."""
        with self._states_lock:
            return dict(sorted(self._states.get(model, {}).items(), reverse=True))

    def refresh(self) -> None:
        """Read the push folder once: load new versions, the highest first, then drop removed and old ones.

        One thread at a time: a caller that comes while another loads a version waits, and does not load it again.

        Raises:
            OSError: the push folder cannot be read; served versions stay.
        """
        with self._reading:
            self._refresh()

    def _refresh(self) -> None:
        pushed = self._manifests.read()
        self._note_staleness(pushed)
        self._read_labels()
        labelled = set(self._configured_labels.values())
        self._failures = {
            manifest.version: self._failures[manifest.version]
            for manifest in pushed
            if manifest.version in self._failures
        }
        for position, manifest in enumerate(reversed(pushed)):
            if position >= KEPT_VERSIONS and manifest.version not in labelled and self._served:
                continue  # older versions are loaded only if they have a label, or none of the newest can be loaded
            if manifest.version not in self._served and self._is_due(manifest):
                self._try_to_load(manifest)
        self._move_labels()
        self._drop_removed(pushed)
        for version in sorted(self._served)[:-KEPT_VERSIONS]:
            if version not in {*labelled, *self._labels.values()}:
                self._drop(version, "newer versions took its place")
        self._note_staleness(pushed)
        if self.live is not None and self.live != self._last_live:
            self.observe_live(self.live)
        self._last_live = self.live

    def _read_labels(self) -> None:
        try:
            text = self._config.read_text()
            if text != self._config_text:
                self._configured_labels = tf_serving.labels(text)
            self._config_text, self._config_fault = text, ""
        except FileNotFoundError:
            self._config_text, self._configured_labels = "", {}
        except (OSError, ValueError) as error:
            if str(error) != self._config_fault:
                _log.error("%s: the labels stay as they are: %s", self._config, error)
            self._config_fault = str(error)

    def _move_labels(self) -> None:
        """Move each label once its new version is loaded; until then the old one answers."""
        self._labels = {
            label: version if version in self._served else self._labels.get(label, version)
            for label, version in self._configured_labels.items()
        }

    def _is_due(self, pushed: Pushed) -> bool:
        failure = self._failures.get(pushed.version)
        return failure is None or self._clock() >= failure.next_try or _files(pushed) != failure.files

    def _try_to_load(self, pushed: Pushed) -> None:
        files, begun = _files(pushed), self._clock()
        try:
            models = self._load_all(pushed)
        except Exception as error:  # a damaged model may raise any error of TensorFlow
            self.observe_load(False, self._clock() - begun)
            self._note_failure(pushed, files, error)
            return
        self.observe_load(True, self._clock() - begun)
        self._pushed_at[pushed.version] = pushed.pushed_at
        self._failures.pop(pushed.version, None)
        self._served = {**self._served, pushed.version: models}
        self._move_labels()
        self._set_state(models, pushed.version, State("AVAILABLE"))
        _log.info("version %d is loaded; version %d is live", pushed.version, self.live)

    def _load_all(self, pushed: Pushed) -> dict[str, Servable]:
        if pushed.missing:
            raise ValueError(
                f"expected a manifest with the parts {', '.join(MODELS)}, found none for {', '.join(pushed.missing)}"
            )
        models = pushed.models
        if self._shard is not None:
            models = {name: folder for name, folder in models.items() if is_of_shard(name, self._shard)}
            if len(models) < len(MODELS):
                raise ValueError(f"expected a retriever of shard {self._shard}, found {', '.join(pushed.models)}")
        self._set_state(models, pushed.version, State("LOADING"))
        if faults := pushed.faults(None if self._shard is None else models):
            raise ValueError("; ".join(faults[:MOST_FAULTS]))
        return {name: self._load(name, pushed.version, folder) for name, folder in models.items()}

    def _note_failure(self, pushed: Pushed, files: object, error: Exception) -> None:
        before = self._failures.get(pushed.version)
        attempts = before.attempts + 1 if before else 1
        wait = min(FIRST_WAIT * 2.0 ** (attempts - 1), LONGEST_WAIT)
        reason = f"{type(error).__name__}: {error}"
        self._failures[pushed.version] = _Failure(files, attempts, self._clock() + wait, reason)
        if before is None or before.reason != reason:
            _log.error(
                "version %d cannot be loaded; version %s stays live, and the load is tried again: %s",
                pushed.version, self.live, reason,
            )  # fmt: skip
        state = State("END", grpc.StatusCode.UNKNOWN, f"version {pushed.version} cannot be loaded: {error}")
        self._set_state(dict.fromkeys([*MODELS, *pushed.models]), pushed.version, state)

    def _drop_removed(self, pushed: list[Pushed]) -> None:
        """Drop versions newer than the newest in the folder, unless nothing else could answer."""
        present = [manifest for manifest in pushed if _is_there(manifest)]
        if not present:  # no version, or no disk
            return
        for version in sorted(self._served, reverse=True):
            is_removed = version not in {manifest.version for manifest in present} and (
                not self._manifests.names(version) or version in {manifest.version for manifest in pushed}
            )
            if version > present[-1].version and is_removed and len(self._served) > 1:
                self._drop(version, "it was removed from the push folder")

    def _drop(self, version: int, reason: str) -> None:
        models = self._served[version]
        self._set_state(models, version, State("UNLOADING"))
        self._served = {number: served for number, served in self._served.items() if number != version}
        self._pushed_at.pop(version, None)
        self._set_state(models, version, State("END"))
        _log.info("version %d is unloaded, as %s; version %d is live", version, reason, self.live)
        del models
        gc.collect()  # a TensorFlow graph refers to itself: alone, its memory comes back many versions later

    def _note_staleness(self, pushed: list[Pushed]) -> None:
        self._newest = pushed[-1].version if pushed else None
        if self._newest is None or self.live is None or self._newest <= self.live:
            self._stale_since = None
        elif self._stale_since is None:
            self._stale_since = self._clock()

    def _set_state(self, models: Iterable[str], version: int, state: State) -> None:
        with self._states_lock:
            for model in models:
                states = self._states.setdefault(model, {})
                states[version] = state
                for old in sorted(states)[:-MOST_STATES]:
                    del states[old]


class Watcher(threading.Thread):
    """Reads the push folder periodically, until it is stopped.

    Args:
        versions: the versions to refresh.
        poll_seconds: the pause between two reads.
    """

    def __init__(self, versions: Versions, poll_seconds: float) -> None:
        super().__init__(name="watcher", daemon=True)
        self._versions = versions
        self._poll_seconds = poll_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Override of Python's method."""
        reported = ""
        while not self._stopped.is_set():
            try:
                self._versions.refresh()
                reported = ""
            except Exception as error:  # such as a disk that is briefly unavailable: served versions stay
                if str(error) != reported:
                    _log.exception("the push folder cannot be read; what is served stays served")
                reported = str(error)
            self._stopped.wait(self._poll_seconds)

    def stop(self, seconds: float | None = None) -> None:
        """End after the current read; wait for it at most `seconds`."""
        self._stopped.set()
        self.join(seconds)


def _is_there(pushed: Pushed) -> bool:
    """Return whether the models' folders exist: False only if the file system says that one does not."""
    try:
        for folder in pushed.models.values():
            folder.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _files(pushed: Pushed) -> object:
    """Return a value that changes when a file of a version does; None if that cannot be read."""
    try:
        paths = (path for folder in pushed.models.values() for path in sorted(folder.rglob("*")) if path.is_file())
        return [(str(path), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]
    except OSError:
        return None
