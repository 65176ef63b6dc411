"""Keeps the terminal for people: output of libraries goes to a log file."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment

from components.progress import PROGRESS_LOGGER
from pipeline.records import Step
from schemas.private_log import PRIVATE_FILE, PrivateRotatingFileHandler
from schemas.visible import visible

LOG_BYTES, LOG_FILES = 10 << 20, 5  # for a command that runs forever
KEPT_LOGS = 100  # newest logs of commands that end
UNKNOWN_WIDTH = 120  # columns, if standard output is not a terminal


class TextConsole(Console):
    """Shows ids, titles and error messages as plain data, neither as markup nor as escape sequences.

    Args:
        file: the output; by default standard output.
        width: columns; None for the terminal's own.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        super().__init__(file=file, width=width, markup=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Override of Rich's method; Rich marks its own control codes."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class VisibleFormatter(logging.Formatter):
    """Formats a log record so that a terminal obeys no control codes in it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Override of logging's method."""
        return visible(super().format(record))


@contextlib.contextmanager
def quiet_terminal(log_folder: Path, command: str) -> Iterator[tuple[Console, Path]]:
    """Redirect everything that this process and its children print to a new log file.

    TensorFlow and Beam write to the file descriptors from C++, past Python's streams, so the descriptors themselves are
    redirected.

    Args:
        log_folder: the folder of the log file; created if missing.
        command: names the log file.

    Yields:
        A console that still reaches the terminal's standard output, and the log file's path.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    path = log_folder / f"{command}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    path.touch(PRIVATE_FILE)
    for old in sorted(log_folder.glob(f"{command}-*.log"))[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    with path.open("wb") as log:
        for descriptor in saved:
            os.dup2(log.fileno(), descriptor)
    try:
        lasting = io.BufferedWriter(_Lasting(os.dup(saved[1]), "wb"))
        with io.TextIOWrapper(lasting, encoding="utf-8") as terminal, warnings.catch_warnings():
            warnings.simplefilter("default")
            width = None if os.isatty(saved[1]) or "COLUMNS" in os.environ else UNKNOWN_WIDTH
            yield TextConsole(terminal, width), path
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        root.removeHandler(handler)
        for descriptor, original in saved.items():
            os.dup2(original, descriptor)
            os.close(original)


@contextlib.contextmanager
def logging_terminal(log_folder: Path, command: str) -> Iterator[tuple[Console, Path]]:
    """Log to standard error and, if possible, to a rotated file; for a command that runs forever.

    Args:
        log_folder: the folder of the log file; created if missing.
        command: names the log file.

    Yields:
        A console on standard output, and the log file's path.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: warnings are about rejected requests
    path = log_folder / f"{command}.log"
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    unwritable = None
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            PrivateRotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8")
        )
    except OSError as error:  # for example on a read-only volume
        unwritable = error
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(VisibleFormatter())
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    if unwritable:
        logging.getLogger(__name__).warning("no log file: %s", unwritable)
    try:
        lasting = io.BufferedWriter(_Lasting(os.dup(1), "wb"))
        with io.TextIOWrapper(lasting, encoding="utf-8") as terminal:
            yield TextConsole(terminal, None if os.isatty(1) else UNKNOWN_WIDTH), path
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _Lasting(io.FileIO):
    """A terminal that may close, as with `| head`: then output is dropped, and the work continues."""

    def write(self, content: Any) -> int:
        """Override of Python's method."""
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


@contextlib.contextmanager
def step_progress(
    console: Console, lines: bool = True
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[Step, float], None]]]:
    """Show a progress bar for the running step, and a line for each completed one.

    Args:
        console: the console to draw on.
        lines: False to show only the bar.

    Yields:
        Two callbacks: one for before a step, with its name, position and the number of steps; one for after it, with the step
        and its seconds.
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=1.0)

    def started(node: str, number: int, count: int) -> None:
        bar.reset(task, description=f"{number}/{count} {node}", total=1.0)

    def ended(step: Step, seconds: float) -> None:
        if lines:
            console.print(f"  {step.node:<24}{step.state:<10}{seconds:6.1f} s", highlight=False)

    handler = _ToBar(bar, task, lines)
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        with bar:
            yield started, ended
    finally:
        logger.removeHandler(handler)


class _ToBar(logging.Handler):
    """Shows a step's progress messages on the bar."""

    def __init__(self, bar: Progress, task: TaskID, lines: bool) -> None:
        super().__init__()
        self._bar = bar
        self._task = task
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.update(self._task, completed=getattr(record, "done", 0.0))
        if self._lines:
            self._bar.console.print(f"    {record.getMessage()}", highlight=False)
