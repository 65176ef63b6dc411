"""Which versions are served: the push folder is watched, and a version is live once all of it is in memory."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from serving import manifests
from serving.errors import not_found
from serving.manifests import Pushed
from serving.servable import Servable

KEPT = 2  # the live version and the one before it, for requests that name it
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


class Versions:
    """The versions that are served.

    All models of a version become live at once. A version that cannot be loaded leaves the one before it live, and is tried
    again when its files change.

    Args:
        push_folder: see `components.pusher.versions`.
        load: takes a model's name, version and folder, and raises where that is not whole.
    """

    def __init__(self, push_folder: Path, load: Callable[[str, int, Path], Servable]) -> None:
        self._push_folder = push_folder
        self._load = load
        self._served: dict[int, dict[str, Servable]] = {}  # never changed, only replaced: a request sees one of them
        self._failed: dict[int, object] = {}  # the files that could not be loaded
        self._states: dict[str, dict[int, State]] = {}
        self._states_lock = threading.Lock()

    @property
    def live(self) -> int | None:
        """The version that answers requests that name none; None before the first is loaded."""
        return max(self._served, default=None)

    def get(self, model: str, version: int | None) -> Servable:
        """What answers a request.

        Args:
            model: its name.
            version: its number; None for the highest that is loaded.

        Raises:
            RequestError: NOT_FOUND.
        """
        served = self._served
        numbers = [number for number, models in served.items() if model in models and version in (None, number)]
        if not numbers:
            wanted = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        return served[max(numbers)][model]

    def states(self, model: str) -> dict[int, State]:
        """How far each version of a model has come, the newest first; empty for a model that was never seen."""
        with self._states_lock:
            return dict(sorted(self._states.get(model, {}).items(), reverse=True))

    def refresh(self) -> None:
        """Looks at the push folder once: loads what is new, the highest first, then drops what is old."""
        for pushed in reversed(manifests.read(self._push_folder)[-KEPT:]):
            if pushed.version not in self._served and self._failed.get(pushed.version) != (files := _files(pushed)):
                try:
                    models = self._load_all(pushed)
                except Exception as error:  # whatever TensorFlow makes of a damaged model
                    self._fail(pushed, files, error)
                else:
                    self._served = {**self._served, pushed.version: models}
                    self._set_state(models, pushed.version, State("AVAILABLE"))
                    _log.info("version %d is loaded; version %d is live", pushed.version, self.live)
        for version in sorted(self._served)[:-KEPT]:
            models = self._served[version]
            self._set_state(models, version, State("UNLOADING"))
            self._served = {number: each for number, each in self._served.items() if number != version}
            self._set_state(models, version, State("END"))
            _log.info("version %d is let go", version)

    def _load_all(self, pushed: Pushed) -> dict[str, Servable]:
        if not pushed.models:
            raise FileNotFoundError(f"expected models below {self._push_folder}, found none of {sorted(pushed.parts)}")
        missing = [str(folder) for folder in pushed.parts.values() if not folder.is_dir()]
        if missing:
            raise FileNotFoundError(f"expected all parts of the manifest, found no {', '.join(missing)}")
        self._set_state(pushed.models, pushed.version, State("LOADING"))
        return {name: self._load(name, pushed.version, folder) for name, folder in pushed.models.items()}

    def _fail(self, pushed: Pushed, files: object, error: Exception) -> None:
        self._failed[pushed.version] = files
        _log.error("version %d cannot be loaded; version %s stays live: %r", pushed.version, self.live, error)
        state = State("END", grpc.StatusCode.UNKNOWN, f"version {pushed.version} cannot be loaded: {error}")
        self._set_state(pushed.parts, pushed.version, state)

    def _set_state(self, models: dict[str, Path] | dict[str, Servable], version: int, state: State) -> None:
        with self._states_lock:
            for model in models:
                self._states.setdefault(model, {})[version] = state


class Watcher(threading.Thread):
    """Looks at the push folder again and again, until it is stopped.

    Args:
        versions: what is refreshed.
        poll_seconds: the pause between two looks.
    """

    def __init__(self, versions: Versions, poll_seconds: float) -> None:
        super().__init__(name="watcher", daemon=True)
        self._versions = versions
        self._poll_seconds = poll_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        """Called by Python."""
        while not self._stopped.is_set():
            try:
                self._versions.refresh()
            except Exception:  # such as a disk that is away for a moment: what is served stays served
                _log.exception("the push folder cannot be read")
            self._stopped.wait(self._poll_seconds)

    def stop(self) -> None:
        """Ends after the present look."""
        self._stopped.set()
        self.join()


def _files(pushed: Pushed) -> object:
    """Whatever changes when a file of a version does."""
    found = (path for folder in pushed.models.values() for path in sorted(folder.rglob("*")) if path.is_file())
    return [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in found]
