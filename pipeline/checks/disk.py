"""Detects a full disk."""

import errno
import shutil
from pathlib import Path

NEXT_TO_NOTHING = 1 << 16  # bytes
# The last is SQLite's of a transaction that it rolled back itself, as it does on a full disk.
WORDS = ("No space left on device", "database or disk is full", "cannot commit - no transaction is active")


def is_full(error: BaseException | None, root: Path) -> bool:
    """Detect a full disk behind whatever exception reports it: Beam and SQLite raise their own, or fail as a consequence."""
    if root.is_dir() and shutil.disk_usage(root).free < NEXT_TO_NOTHING:
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        if any(words in str(error) for words in WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
