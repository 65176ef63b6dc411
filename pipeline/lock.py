"""One command at a time writes below a root."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from schemas.errors import UserError


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Holds the root's lock. The kernel lets go of it when its owner dies, however it dies.

    Raises:
        UserError: another process holds it; names which, and since when.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "an unknown process"
            raise UserError(
                f"{root} is in use by another run ({owner}). Wait for it to end, or give this one a root of its own: "
                "--set root=DIR."
            ) from error
        lock.truncate(0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        lock.write(json.dumps(holder))
        lock.flush()
        yield
