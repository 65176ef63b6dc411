"""Lists every file at a path, and raises an error for anything that prevents reading all of it."""

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components import object_store
from schemas.errors import UserError

ANY_DEPTH = "/**"
HIDDEN = ("_", ".")
HALF_WRITTEN = (
    "._COPYING_",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".inprogress",
    ".pending",
    "~",
)
MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Entry:
    """A file or folder at a path.

    Attributes:
        path: its path.
        size: bytes.
        modified: seconds since 1970-01-01 UTC.
        depth: the number of folders below the path; 0 for an entry that the path names.
    """

    path: str
    size: int
    modified: float
    depth: int

    @property
    def is_hidden(self) -> bool:
        """Whether its name marks it as no data."""
        return PurePosixPath(self.path).name.startswith(HIDDEN)


def listed(path: str) -> list[Entry]:
    """List the files at a path: a file, a folder or a glob, sorted; a hidden folder is one entry, and not listed further.

    Raises:
        UserError: a folder cannot be entered, a link is broken, an entry is not a file, or a name is not UTF-8.
    """
    path = path.removesuffix(ANY_DEPTH).rstrip("/") or "/"
    entries = (
        _of_object_store(path)
        if "://" in path
        else [entry for expansion in expanded(path) for entry in _below(expansion, 0, ())]
    )
    unreadable = sorted(
        repr(entry.path) for entry in entries if entry.path.encode(errors="ignore").decode() != entry.path
    )
    if unreadable:
        raise UserError(f"expected names in UTF-8, found {', '.join(unreadable)}. Rename it.")
    return sorted(entries, key=lambda entry: entry.path)


def expanded(path: str) -> list[str]:
    """Return the paths that a glob matches, including broken links; `*` matches no slash.

    Raises:
        UserError: a folder cannot be entered, or an object store refuses or does not answer.
    """
    if "://" in path:
        return object_store.matched(path)
    paths = ["/" if path.startswith("/") else ""]
    for segment in PurePosixPath(path).parts:
        if segment == "/":
            continue
        if MAGIC & set(segment):
            paths = [
                os.path.join(folder, name)
                for folder in paths
                if Path(folder or ".").is_dir()
                for name in sorted(entry.name for entry in _entries(folder or "."))
                if fnmatch.fnmatchcase(name, segment)
            ]
        else:
            paths = [joined for folder in paths if _is_there(joined := os.path.join(folder, segment))]
    return paths


def _is_there(path: str) -> bool:
    """Return `os.path.lexists`, which treats inaccessible paths as missing."""
    try:
        os.lstat(path)
    except PermissionError as error:
        raise _refused(path) from error
    except OSError:
        return False
    return True


def _below(path: str, depth: int, above: tuple[str, ...]) -> Iterator[Entry]:
    name = PurePosixPath(path).name
    try:
        status = Path(path).stat()
    except PermissionError as error:
        raise _refused(path) from error
    except OSError as error:
        if depth and name.startswith(HIDDEN):
            yield Entry(path, 0, 0.0, depth)
            return
        where = f" to {Path(path).readlink()}" if Path(path).is_symlink() else ""
        raise UserError(
            f"{path} is a link{where}, which leads nowhere. Mount what it leads to, or remove it."
        ) from error
    if stat.S_ISREG(status.st_mode) or (depth and name.startswith(HIDDEN)):
        yield Entry(path, status.st_size, status.st_mtime, depth)
        return
    if not stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is neither a file nor a folder. Move it away.")
    real = os.path.realpath(path)
    if real in above:
        raise UserError(f"{path} is a link to a folder that it lies in. Remove it.")
    for entry in sorted(_entries(path), key=lambda entry: entry.name):
        yield from _below(entry.path, depth + 1, (*above, real))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise _refused(folder) from error


def _refused(path: str) -> UserError:
    return UserError(
        f"{path} may not be looked into by user {os.geteuid()}. Give this user the right to, or move it away."
    )


def _of_object_store(address: str) -> list[Entry]:
    """List what a glob of an object store matches, as `_below` lists what one of this machine does."""
    entries = {}
    for path, info, segments in object_store.below(address):
        depth = next((n for n, segment in enumerate(segments[:-1], 1) if segment.startswith(HIDDEN)), len(segments))
        if above := len(segments) - depth:  # in a hidden folder
            folder = path.rsplit("/", above)[0]
            entries[folder] = Entry(folder, 0, 0.0, depth)
        else:
            entries[path] = Entry(path, info.size, info.mtime_ns / 1e9, depth)
    return list(entries.values())
