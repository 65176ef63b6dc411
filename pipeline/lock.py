"""The lock of a root: one command writes below it at a time, or the steps of runs side by side."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from schemas.errors import PassingError

LOCKS = Path("/proc/locks")


def exclusive(root: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the root's lock exclusively. The kernel releases it when the owner dies, however it dies.

    Raises:
        PassingError: another process holds it; the message names it, and since when.
    """
    return _held(root, fcntl.LOCK_EX)


def shared(root: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the root's lock together with others that share it.

    Raises:
        PassingError: another process holds it exclusively; the message names it, and since when.
    """
    return _held(root, fcntl.LOCK_SH)


@contextlib.contextmanager
def pushing(root: Path) -> Iterator[None]:
    """Hold the root's lock beside others that share it, after waiting for any other process that pushes.

    Raises:
        PassingError: another process holds the root's lock alone; names which, and since when.
    """
    with shared(root), (root / ".push.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def exporting(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for exports, which is not that of a root.

    Raises:
        PassingError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".export.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PassingError(f"{folder}: another export is writing there. Wait for it to end.") from error
        yield


def is_held(root: Path) -> bool:
    """Return whether a process of this machine holds the root's lock, without acquiring it."""
    try:
        inode = (root / ".lock").stat().st_ino
        locks = LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(f":{inode} " in line and " FLOCK " in line for line in locks)


@contextlib.contextmanager
def _held(root: Path, way: int) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, way | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "an unknown process"
            raise PassingError(
                f"{root} is in use by another run ({owner}). Wait for it to end, or give this one its own root: "
                "--set root=DIR."
            ) from error
        lock.truncate(0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        lock.write(json.dumps(holder))
        lock.flush()
        yield
