"""Folders of files on any file system of TFX's fileio: copied with their digests, compared, moved, removed.

A local folder appears and disappears by one rename. Object stores have no atomic rename, so files appear and disappear one by one,
`saved_model.pb` last and first: TF Serving looks for it, and so never loads half a model.
"""

import hashlib
import posixpath
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components import object_store
from components.pusher import object_store as registers_object_stores
from components.pusher.manifest import Digest
from schemas.errors import UserError

assert registers_object_stores
SAVED_MODEL = "saved_model.pb"
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Source:
    """A folder to copy.

    Attributes:
        folder: its path.
        names: the files to copy, relative to it; None for all.
    """

    folder: str
    names: tuple[str, ...] | None = None


def exists(path: str) -> bool:
    """Return whether there is a file or a folder.

    Raises:
        UserError: TensorFlow has no file system for the address, or no access.
    """
    try:
        is_there: bool = fileio.exists(path)
    except (tf.errors.UnimplementedError, tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError) as error:
        raise UserError(
            f"{path} cannot be used: {error.message}. Install the file system's plug-in for TensorFlow, see to the "
            "credentials, or name another folder: --set pusher.destination=DIR."
        ) from error
    return is_there


def copy(source: Source, target: str) -> dict[str, Digest]:
    """Copy files to a new folder.

    Returns:
        By name, the digest of the content read.

    Raises:
        UserError: there is no file to copy, or an object store refuses; a PassingError where it does not answer.
    """
    names = _names(source)
    for folder in sorted({posixpath.dirname(posixpath.join(target, name)) for name in names}):
        fileio.makedirs(folder)
    by_name = {}
    for name in names:
        try:
            with fileio.open(posixpath.join(target, name), "wb") as copied:
                by_name[name] = _digest(posixpath.join(source.folder, name), copied)
        except OSError as error:
            if store := next((place for place in (target, source.folder) if not _is_local(place)), None):
                raise object_store.fault(store, error) from error
            raise
    return by_name


def digests(source: Source) -> dict[str, Digest]:
    """Return the digests of files by name.

    Raises:
        UserError: there is none.
    """
    return {name: _digest(posixpath.join(source.folder, name)) for name in _names(source)}


def differences(expected: Mapping[str, Digest], actual: Mapping[str, Digest]) -> list[str]:
    """Describe each file that is not as expected, in a sentence."""
    sentences = []
    for name in sorted({*expected, *actual}):
        if name not in actual:
            sentences.append(f"{name} is missing")
        elif name not in expected:
            sentences.append(f"{name} does not belong there")
        elif expected[name].size != actual[name].size:
            sentences.append(f"{name} has {actual[name].size:,} bytes instead of {expected[name].size:,}")
        elif expected[name] != actual[name]:
            sentences.append(f"{name} holds something else than was pushed")
    return sentences


def move(source: str, target: str) -> None:
    """Move a folder to a place that a server watches; safe to repeat after a crash at any point, while the source exists."""
    if _is_local(target):
        fileio.makedirs(posixpath.dirname(target))
        fileio.rename(source, target)
        return
    for name in sorted(_walk(source), key=lambda name: (name == SAVED_MODEL, name)):
        fileio.makedirs(posixpath.dirname(posixpath.join(target, name)))
        fileio.rename(posixpath.join(source, name), posixpath.join(target, name), overwrite=True)
    io_utils.delete_dir(source)  # an object store may have no empty folders


def probe(folder: str) -> None:
    """Write a small folder, move it like a component of a version, read it, and remove it.

    Raises:
        UserError: as `exists`.
        tf.errors.OpError, OSError: one of these fails.
    """
    aside, content = posixpath.join(folder, f".probe-{uuid.uuid4().hex}"), b"probe"
    source, target = posixpath.join(aside, "staged"), posixpath.join(aside, "moved", "folder")
    exists(folder)
    try:
        fileio.makedirs(source)
        with fileio.open(posixpath.join(source, SAVED_MODEL), "wb") as file:
            file.write(content)
        move(source, target)
        if digests(Source(target))[SAVED_MODEL].sha256 != hashlib.sha256(content).hexdigest():
            raise OSError(f"{target} holds something else than was written")
    finally:
        if fileio.exists(aside):
            fileio.rmtree(aside)


def take_away(folder: str, aside: str) -> None:
    """Remove a folder from a place that a server watches: to a local place aside, or from an object store directly."""
    if _is_local(folder):
        fileio.rename(folder, aside)
        return
    if fileio.exists(posixpath.join(folder, SAVED_MODEL)):
        fileio.remove(posixpath.join(folder, SAVED_MODEL))
    fileio.rmtree(folder)


def _is_local(path: str) -> bool:
    return "://" not in path


def _names(source: Source) -> tuple[str, ...]:
    names = tuple(_walk(source.folder)) if source.names is None else source.names
    if not names:
        raise UserError(f"{source.folder}: expected a part of a version, found no file. Run the day again.")
    return names


def _walk(folder: str) -> list[str]:
    """List the files in a folder and below, relative to it, in order."""
    return sorted(
        posixpath.join(place.removeprefix(folder).strip("/"), name)
        for place, _, names in fileio.walk(folder)
        for name in names
    )


def _digest(path: str, copied: Any = None) -> Digest:
    """Compute a file's digest, and copy the file if a target is given."""
    content, size = hashlib.sha256(), 0
    with fileio.open(path, "rb") as file:
        while True:
            chunk = file.read(CHUNK)
            if copied is not None:
                copied.write(chunk)  # even an empty one: TensorFlow creates a file on the first write
            if not chunk:
                return Digest(size=size, sha256=content.hexdigest())
            content.update(chunk)
            size += len(chunk)
