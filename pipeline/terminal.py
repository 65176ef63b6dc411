"""The terminal is for people: what libraries print goes to a log file."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console


@contextlib.contextmanager
def quiet_terminal(log_folder: Path, command: str) -> Iterator[tuple[Console, Path]]:
    """Sends everything that this process and its children print to a new log file.

    TensorFlow and Beam write to the file descriptors from C++, past Python's own streams, so the descriptors
    themselves are turned.

    Args:
        log_folder: where the log file goes; made if missing.
        command: names the log file.

    Yields:
        A console that still reaches the terminal's standard output, and the log file's path.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    path = log_folder / f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    warnings.simplefilter("default")
    with path.open("wb") as log:
        for descriptor in kept:
            os.dup2(log.fileno(), descriptor)
    try:
        with os.fdopen(os.dup(kept[1]), "w", encoding="utf-8") as terminal:
            yield Console(file=terminal), path
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        root.removeHandler(handler)
        for descriptor, original in kept.items():
            os.dup2(original, descriptor)
            os.close(original)
