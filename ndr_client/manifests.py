"""Reads the versions of a push folder, and checks that their files are the pushed ones.

Only the pipeline's Pusher writes there: the components of a version first, then its manifest, manifests/VERSION.json. Servers and
clients only read, with the standard library alone.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ndr_client import json_text
from ndr_client.served import MODELS, models_of, names_of

MANIFESTS = "manifests"
LARGEST_MANIFEST = 16 << 20  # bytes
HIGHEST_VERSION = (1 << 63) - 1  # TF Serving's, an int64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """A version, as described by its manifest.

    Attributes:
        root: the push folder.
        version: its number; the highest is live.
        parts: the folder of each component.
        files: for each component, the size in bytes and the SHA-256 of each file by its name in the folder. Empty in manifests of
            older code.
        pushed_at: when the version became visible, in seconds since 1970.
    """

    root: Path
    version: int
    parts: dict[str, Path]
    files: dict[str, dict[str, tuple[int, str]]]
    pushed_at: float

    @property
    def models(self) -> dict[str, Path]:
        """The components that are SavedModels."""
        return {name: self.parts[name] for name in models_of(self.parts)}

    @property
    def missing(self) -> list[str]:
        """The SavedModels that belong to a version and are not in this one: a tower, the retriever, or that of a shard."""
        return [name for model in MODELS for name in names_of(model, self.parts) if name not in self.parts]

    def faults(self, components: Iterable[str] | None = None) -> list[str]:
        """Read every file of the version and compare it with the manifest.

        Args:
            components: the components to read; by default all.

        Returns:
            A sentence for each fault: a component or file that is missing, differs, is not in the manifest, or is a link out of the
            push folder. Without checksums in the manifest, only whether the components exist, and the links.

        Raises:
            OSError: a file cannot be read.
        """
        return [
            fault
            for component in (self.parts if components is None else components)
            for fault in self._faults_of(component)
        ]

    def _faults_of(self, component: str) -> Iterator[str]:
        folder = self.parts[component]
        place = folder.relative_to(self.root)
        if not folder.is_dir():
            yield f"{place} is missing"
            return
        root = self.root.resolve()
        outside = [path for path in (folder, *_tree(folder)) if not path.resolve().is_relative_to(root)]
        if outside:
            yield from (f"{path.relative_to(self.root)} leads out of the push folder" for path in outside)
            return
        if not self.files:
            return
        expected, actual = (
            self.files.get(component, {}),
            {path.relative_to(folder).as_posix(): path for path in _files(folder)},
        )
        for name in sorted({*expected, *actual}):
            if name not in actual:
                yield f"{place}/{name} is missing"
            elif name not in expected:
                yield f"{place}/{name} does not belong there"
            elif (size := actual[name].stat().st_size) != expected[name][0]:
                yield f"{place}/{name} has {size:,} bytes instead of {expected[name][0]:,}"
            elif _sha256(actual[name]) != expected[name][1]:
                yield f"{place}/{name} has another content than what was pushed"


class Manifests:
    """The manifests of a push folder. Other files are ignored, and logged once.

    Args:
        push_folder: it may not exist yet.
    """

    def __init__(self, push_folder: Path) -> None:
        self._root = push_folder
        self._reported: dict[str, str] = {}

    def read(self) -> list[Pushed]:
        """Read every version with a manifest, oldest first.

        Raises:
            OSError: the folder of the manifests cannot be listed.
        """
        pushed, odd = [], {}
        for name in self._names():
            try:
                pushed.append(_read(self._root, name))
            except FileNotFoundError:  # retention removed it since the folder was listed
                continue
            except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
                odd[name] = f"{type(error).__name__}: {error}"
                if self._reported.get(name) != odd[name]:
                    path = self._root / MANIFESTS / name
                    _log.error(
                        "%s: expected a version's manifest, found something else: %s. Move it away.", path, odd[name]
                    )
        self._reported = odd
        return sorted(pushed, key=lambda entry: entry.version)

    def names(self, version: int) -> bool:
        """Return whether there is a manifest of this version, even one that cannot be read now.

        Raises:
            OSError: the folder of the manifests cannot be listed.
        """
        return f"{version}.json" in self._names()

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in (self._root / MANIFESTS).iterdir() if path.name.endswith(".json"))
        except FileNotFoundError:
            return []


def _read(root: Path, name: str) -> Pushed:
    path = root / MANIFESTS / name
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_MANIFEST:  # opening a FIFO would block
        raise ValueError(f"expected a file of at most {LARGEST_MANIFEST} bytes")
    content = json_text.parse(path.read_bytes())
    version = content["version"]
    if type(version) is not int or f"{version}.json" != name or not 0 < version <= HIGHEST_VERSION:
        raise ValueError("expected a version that is a positive int64 and the name of the file")
    components = {component: root / _inside(place) for component, place in content["parts"].items()}
    files = {component: _digests(digests) for component, digests in content.get("files", {}).items()}
    return Pushed(root, version, components, files, status.st_mtime)


def _inside(place: str) -> PurePosixPath:
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in place:
        raise ValueError(f"expected the places of parts in the push folder, found {place!r}")
    return path


def _digests(files: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {name: (int(digest["size"]), str(digest["sha256"])) for name, digest in files.items()}


def _tree(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder; links are listed, not followed."""
    for parent, folders, files in os.walk(folder, onerror=_raise):
        yield from (Path(parent, name) for name in (*folders, *files))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in _tree(folder) if path.is_symlink() or not path.is_dir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _raise(error: OSError) -> None:
    raise error
