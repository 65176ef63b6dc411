"""Files that appear once they are complete, because a process may be killed at any moment. Imports TFX only to write with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: str, content: bytes) -> None:
    """Write a file of any file system that TFX knows; its folder is made."""
    from tfx.dsl.io import fileio
    from tfx.utils import io_utils

    io_utils.write_bytes_file(f"{path}.unfinished", content)
    fileio.rename(f"{path}.unfinished", path, overwrite=True)


@contextmanager
def aside(path: Path, mark: str = "unfinished") -> Iterator[Path]:
    """Yield a hidden file beside a local one, which gets its name when the block is left without an exception.

    Args:
        path: the file; its folder exists.
        mark: ends the name of the hidden file, which whoever repeats the work overwrites.
    """
    unfinished = path.with_name(f".{path.name}.{mark}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_aside(path: Path, text: str) -> None:
    """Write a local text file, also beside other processes that write it; lone surrogates are written as escapes."""
    with aside(path, str(os.getpid())) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
