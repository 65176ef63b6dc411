"""The terminal is for people: what libraries print goes to a log file."""

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
from pipeline.runs import Step
from schemas.private_log import PRIVATE_FILE, PrivateRotatingFileHandler
from schemas.visible import visible

LOG_BYTES, LOG_FILES = 10 << 20, 5  # of a command that runs for ever
KEPT_LOGS = 100  # of a command that ends, the newest
UNKNOWN_WIDTH = 120  # columns, where standard output is no terminal


class TextConsole(Console):
    """Shows ids, titles and error messages as what they are: data, neither markup nor escape sequences.

    Args:
        file: where to; by default standard output.
        width: in columns; None for the terminal's own.
    """

    def __init__(self, file: IO[str] | None = None, width: int | None = None) -> None:
        super().__init__(file=file, width=width, markup=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Called by Rich, whose own control codes are marked as such."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class VisibleFormatter(logging.Formatter):
    """Formats a record of the log so that no text of others in it is obeyed by a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        return visible(super().format(record))


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
    path.touch(PRIVATE_FILE)
    for old in sorted(log_folder.glob(f"{command}-*.log"))[:-KEPT_LOGS]:
        old.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    with path.open("wb") as log:
        for descriptor in kept:
            os.dup2(log.fileno(), descriptor)
    try:
        lasting = io.BufferedWriter(_Lasting(os.dup(kept[1]), "wb"))
        with io.TextIOWrapper(lasting, encoding="utf-8") as terminal, warnings.catch_warnings():
            warnings.simplefilter("default")
            width = None if os.isatty(kept[1]) or "COLUMNS" in os.environ else UNKNOWN_WIDTH
            yield TextConsole(terminal, width), path
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        root.removeHandler(handler)
        for descriptor, original in kept.items():
            os.dup2(original, descriptor)
            os.close(original)


@contextlib.contextmanager
def logging_terminal(log_folder: Path, command: str) -> Iterator[tuple[Console, Path]]:
    """For a command that runs for ever: its log goes to standard error, and to a file that is rotated, where one can be written.

    Args:
        log_folder: where the log file goes; made if missing.
        command: names the log file.

    Yields:
        A console on standard output, and the log file's path.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors: its warnings are of requests that a model refuses
    path = log_folder / f"{command}.log"
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    unwritable = None
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
        handlers.append(
            PrivateRotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8")
        )
    except OSError as error:  # such as a volume that is mounted to be read
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
    """A terminal that may go away, as `| head` does: what it no longer takes is dropped, and the work goes on."""

    def write(self, content: Any) -> int:
        """Called by Python."""
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


@contextlib.contextmanager
def step_progress(
    console: Console, lines: bool = True
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[Step, float], None]]]:
    """A bar for the step that runs, and a line for each that has ended.

    Args:
        console: where to.
        lines: without them only the bar is seen.

    Yields:
        What is to be told a step's name, its number and how many there are before it runs; and the step with its seconds
        after it ran.
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
    """Shows what a step says of its progress."""

    def __init__(self, bar: Progress, task: TaskID, lines: bool) -> None:
        super().__init__()
        self._bar = bar
        self._task = task
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.update(self._task, completed=getattr(record, "done", 0.0))
        if self._lines:
            self._bar.console.print(f"    {record.getMessage()}", highlight=False)
