"""TFX's fileio for object stores: registers `components.object_store` for s3:// and gs://.

TensorFlow has no file system for s3 of its own, and its one for gs reads other variables of the environment. Object stores have no
folders: to make one does nothing, and one is there where a file is below it.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyarrow import fs
from tfx.dsl.io import filesystem, filesystem_registry

from components import object_store

PRIORITY = 0  # before TensorFlow's


class ObjectStore(filesystem.Filesystem):
    """What the push folder needs of TFX's interface. Every method raises NotFoundError for what is missing, and UserErrors."""

    SUPPORTED_SCHEMES = ["s3://", "gs://"]

    @staticmethod
    def open(name: str, mode: str = "r") -> Any:
        """Open a file; one that is written is complete, and visible, when it is closed."""
        with _asked(name) as (system, path):
            file = system.open_output_stream(path, compression=None) if "w" in mode else system.open_input_file(path)
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    @staticmethod
    def exists(path: str) -> bool:
        """Return whether there is a file, or a file below it."""
        return _kind(path) != fs.FileType.NotFound

    @staticmethod
    def isdir(path: str) -> bool:
        """Return whether there is a file below it."""
        return _kind(path) == fs.FileType.Directory

    @staticmethod
    def listdir(path: str) -> list[str]:
        """List the names in a folder."""
        return sorted({name.partition("/")[0] for name in _below(path)})

    @staticmethod
    def makedirs(path: str) -> None:
        """Do nothing."""

    @staticmethod
    def remove(path: str) -> None:
        """Remove a file."""
        with _asked(path) as (system, key):
            system.delete_file(key)

    @staticmethod
    def rename(src: str, dst: str, overwrite: bool = False) -> None:
        """Copy a file and remove the first."""
        if not overwrite and ObjectStore.exists(dst):
            raise OSError(f"{dst} is there already")
        with _asked(src) as (system, key):
            system.move(key, object_store.file_system(dst)[1])

    @staticmethod
    def rmtree(path: str) -> None:
        """Remove every file below."""
        with _asked(path) as (system, key):
            if isinstance(system, fs.S3FileSystem):
                system.delete_dir(key)  # with the object that Arrow leaves for a folder
            else:
                system.delete_dir_contents(key, missing_dir_ok=True)

    @staticmethod
    def walk(
        top: str, topdown: bool = True, onerror: Callable[..., None] | None = None
    ) -> Iterable[tuple[str, list[str], list[str]]]:
        """Yield each folder from the top, the names of folders in it, and those of files."""
        names = _below(top)
        parents = {
            "/".join(segments[:depth])
            for name in names
            for segments in [name.split("/")]
            for depth in range(len(segments))
        }
        for folder in sorted(parents):
            inside = [name[len(folder) :].lstrip("/") for name in names if not folder or name.startswith(f"{folder}/")]
            folders = sorted({name.partition("/")[0] for name in inside if "/" in name})
            yield f"{top}/{folder}".rstrip("/"), folders, sorted(name for name in inside if "/" not in name)


@contextmanager
def _asked(address: str) -> Iterator[tuple[fs.FileSystem, str]]:
    try:
        yield object_store.file_system(address)
    except FileNotFoundError as error:
        raise filesystem.NotFoundError(f"{address}: there is no such file") from error
    except OSError as error:
        raise object_store.fault(address, error) from error


def _kind(path: str) -> fs.FileType:
    with _asked(path) as (system, key):
        named = system.get_file_info(key).type
        if named == fs.FileType.NotFound and not isinstance(system, fs.S3FileSystem):
            # Of gs Arrow knows a folder only by an object that stands for it.
            return fs.FileType.Directory if object_store.files_below(system, key) else named
        return named


def _below(path: str) -> list[str]:
    """Return the keys of the files below a folder, relative to it."""
    with _asked(path) as (system, key):
        return [info.path.removeprefix(key).lstrip("/") for info in object_store.files_below(system, key)]


filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=PRIORITY)
