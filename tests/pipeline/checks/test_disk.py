"""A full disk is recognised by what those who meet it say. A run on one is in tests/end_to_end/test_runs.py."""

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.checks import disk


def of_python(_: Path) -> None:
    Path("/dev/full").write_text("more")


def by_its_number(_: Path) -> None:
    """As by a library with words of its own."""
    raise OSError(errno.ENOSPC, "the file cannot be written")


def by_its_words(_: Path) -> None:
    """As by Beam and TensorFlow: what they raise has the words of the system, but not its number."""
    raise RuntimeError(f"{os.strerror(errno.ENOSPC)} [while running 'Write']")


def of_sqlite(root: Path) -> None:
    full_database(root).execute("INSERT INTO kept VALUES (zeroblob(100000))")


def of_sqlite_at_its_end(root: Path) -> None:
    """Whoever passes over what SQLite says first, as ML Metadata does, hears this at the end of the transaction."""
    database = full_database(root)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.execute("INSERT INTO kept VALUES (zeroblob(100000))")
    database.execute("COMMIT")


def full_database(root: Path) -> sqlite3.Connection:
    """A database that has begun a transaction and may not grow: SQLite then says and does what it does on a full disk."""
    database = sqlite3.connect(root / "database.sqlite", isolation_level=None)
    database.execute("CREATE TABLE kept (content)")
    database.execute("PRAGMA max_page_count = 2")
    database.execute("BEGIN")
    return database


@pytest.mark.parametrize("met", [of_python, by_its_number, by_its_words, of_sqlite, of_sqlite_at_its_end])
def test_a_full_disk_is_recognised_behind_every_exception_that_reports_it(
    met: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises((OSError, RuntimeError, sqlite3.Error)) as raised:
        met(tmp_path)
    assert disk.is_full(raised.value, tmp_path)
    as_cause, as_context = ValueError("a step failed"), ValueError("another failed")
    as_cause.__cause__ = as_context
    as_context.__context__ = raised.value
    assert disk.is_full(as_cause, tmp_path)


def test_other_faults_are_no_full_disk_unless_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = (PermissionError(13, "Permission denied"), ValueError("a disk"), None)
    assert not any(disk.is_full(fault, tmp_path) for fault in faults)
    assert not disk.is_full(faults[0], tmp_path / "nowhere")
    monkeypatch.setattr(disk, "NEXT_TO_NOTHING", 1 << 62)
    assert all(disk.is_full(fault, tmp_path) for fault in faults)
