"""Finds the files of a day."""

import hashlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path, PurePosixPath

from components import utc
from components.example_gen import listing
from components.example_gen.settings import DATE_PARTS, FROM_LOG, ExampleGenSettings, SourceSettings
from schemas.errors import UserError

SUCCESS = "_SUCCESS"


@dataclass(frozen=True)
class SourceFile:
    """A file of the data.

    Attributes:
        path: its path.
        size: bytes.
        modified: seconds since 1970-01-01 UTC.
        day: the UTC day of its data; None if a file has many days.
    """

    path: str
    size: int
    modified: float
    day: date | None


@dataclass(frozen=True)
class Found:
    """The files of a source.

    Attributes:
        files: the files to read, by path within a day.
        passed_over: the paths of files skipped because their names begin with `_` or `.`; without markers and checksums.
        absent: days that would be read for histories, or for earlier values, if they existed.
    """

    files: list[SourceFile] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    absent: list[date] = field(default_factory=list)


class NotYetThereError(UserError):
    """Data that is missing, or not yet completely written."""


@dataclass(frozen=True)
class Window:
    """The UTC days of a run.

    Attributes:
        history_start: the first day to read.
        start: the first day whose interactions become examples.
        day: the last day, the run's own.
        closed: the closed days between the first and the last.
    """

    history_start: date
    start: date
    day: date
    closed: frozenset[date] = frozenset()

    @classmethod
    def of(cls, settings: ExampleGenSettings, day: date, goes_on: bool, has_history: bool) -> "Window":
        """Return the window that ends with a day.

        Args:
            settings: define its length.
            day: the run's day.
            goes_on: whether training continues from an earlier model.
            has_history: whether users' histories are derived from the interactions, so that earlier days are read for them.
        """
        days = settings.window_days if goes_on else settings.catch_up_days or settings.window_days
        start = _open_days_before(settings, day, days - 1)
        history_start = _open_days_before(settings, start, settings.history_before(days) if has_history else 0)
        between = [history_start + timedelta(days=n) for n in range((day - history_start).days + 1)]
        return cls(history_start, start, day, frozenset(filter(settings.is_closed, between)))

    @property
    def days(self) -> list[date]:
        """All days to read, oldest first."""
        between = (self.history_start + timedelta(days=n) for n in range((self.day - self.history_start).days + 1))
        return [day for day in between if day not in self.closed]

    @property
    def end_microseconds(self) -> int:
        """The first instant after the window."""
        return utc.microseconds(self.day) + utc.MICROSECONDS_A_DAY


def _open_days_before(settings: ExampleGenSettings, day: date, days: int) -> date:
    """Return the day a number of open days before another, not before the log's first."""
    while days and day > (settings.first_day or date.min):
        day -= timedelta(days=1)
        days -= not settings.is_closed(day)
    return day


def interaction_files(settings: ExampleGenSettings, window: Window) -> Found:
    """Find the files of a run's window.

    Default days of histories (without `history_days`) are skipped if missing.

    Raises:
        UserError: one line for each other day without files or without its success marker.
    """
    source = settings.interactions
    if settings.first_day and window.day < settings.first_day:
        raise UserError(f"There is no log of {window.day}: data.first_day is {settings.first_day}.")
    if not source.is_daily:
        return _files(source, source.path, None)
    selection = Found()
    faults: list[str] = []
    for day in window.days:
        try:
            of_day = _files(source, _dated(source.path, day), day)
            selection.files.extend(of_day.files)
            selection.passed_over.extend(of_day.passed_over)
        except UserError as error:
            if isinstance(error, NotYetThereError) and settings.history_days is None and day < window.start:
                selection.absent.append(day)
            else:
                faults.append(f"{day}: {error}")
    if faults:
        hint = (
            "Wait until they are written, or set data.first_day, data.window_days, data.catch_up_days or data.history_days where "
            "there never was such a day."
        )
        raise UserError(
            "\n".join([f"Interactions of {len(faults)} day(s) are missing or unfit:", *_first_few(faults), hint])
        )
    return selection


def log_files(settings: ExampleGenSettings, first: date, day: date) -> Found:
    """Find the files of the log for a catalogue made from it: of all existing days from one to another.

    `interaction_files` checks for missing days of the window; but the run's own day must exist.

    Raises:
        UserError: files cannot be read, or the last day has none.
    """
    source = settings.interactions
    if not source.is_daily:
        return _files(source, source.path, None)
    selection = Found()
    for log_day in sorted({day, *(log_day for log_day in _days_on_disk(source.path) if first <= log_day < day)}):
        if not settings.is_closed(log_day):
            try:
                of_day = _files(source, _dated(source.path, log_day), log_day)
            except UserError as error:
                if isinstance(error, NotYetThereError) and log_day < day:
                    selection.absent.append(log_day)
                    continue
                raise UserError(f"{log_day}: {error}") from error
            selection.files.extend(of_day.files)
            selection.passed_over.extend(of_day.passed_over)
    return selection


def first_to_see(settings: ExampleGenSettings, day: date, goes_on: bool, changing: Collection[str]) -> date | None:
    """Return the first day whose interactions see tables of items or users: the window's; None if no feature changes.

    Args:
        settings: define the window's length.
        day: the run's day.
        goes_on: whether training continues from an earlier model.
        changing: the features that change.
    """
    return Window.of(settings, day, goes_on, has_history=False).start if changing else None


def catalogue_files(settings: ExampleGenSettings, day: date, first: date | None = None) -> Found:
    """Find the files of the newest catalogue not after a day, and of earlier ones, see `newest_files`.

    None if it is made from the log.
    """
    if settings.catalogue == FROM_LOG:
        return Found()
    return newest_files(settings.catalogue_source, day, "catalogue", first)


def newest_files(source: SourceSettings, day: date, what: str, first: date | None = None) -> Found:
    """Find the files of the newest table not after a day, and of those that the interactions of earlier days see.

    Of these, an incomplete table is skipped for the one before it.

    Args:
        source: the place of the tables.
        day: the run's day.
        what: the kind of table, for the error.
        first: the first day whose interactions see them; each day's see the newest of an earlier day. None for the newest only.

    Returns:
        The files, those of newer tables first.

    Raises:
        UserError: there is no table, or the newest lacks its success marker.
    """
    if not source.is_daily:
        return _files(source, source.path, None)
    snapshots = [snapshot for snapshot in _days_on_disk(source.path) if snapshot <= day]
    if not snapshots:
        raise UserError(f"No {what} of {day} or before at {source.path}.")
    oldest = max(snapshots)
    selection = _files(source, _dated(source.path, oldest), oldest)
    for snapshot in sorted(snapshots, reverse=True)[1:]:
        if first is None or oldest < first:
            break
        try:
            of_day = _files(source, _dated(source.path, snapshot), snapshot)
        except NotYetThereError:
            selection.absent.append(snapshot)
            continue
        selection.files.extend(of_day.files)
        selection.passed_over.extend(of_day.passed_over)
        oldest = snapshot
    return selection


def table_days(files: Sequence[SourceFile]) -> list[int]:
    """Return the day of each file's table, in days since 1970-01-01; 0 for a table without a day."""
    return [0 if file.day is None else utc.span(file.day) for file in files]


def start_of_newest(files: Sequence[SourceFile]) -> int | None:
    """Return the first microsecond of the newest table's day; None for a table without a day."""
    return max((utc.microseconds(file.day) for file in files if file.day is not None), default=None)


def fingerprint(files: list[SourceFile]) -> str:
    """Return a digest that changes when a file is added, removed or rewritten."""
    content = "\n".join(f"{file.path}\t{file.size}\t{file.modified:.6f}" for file in files)
    return hashlib.sha256(content.encode()).hexdigest()


def fingerprint_of(find: Callable[[], Found]) -> str:
    """Return the fingerprint of the files found, or the fault if something is missing."""
    try:
        return fingerprint(find().files)
    except UserError as error:
        return f"missing: {error}"


def summary(files: Iterable[SourceFile]) -> dict[str, str | int]:
    """Summarise files: the number of `folders`, the `first` and the `last` by name, the numbers of `files` and `bytes`.

    First and last are folders, or files if one folder has a file for each day.
    """
    listed = list(files)
    folders = sorted({file.path.rpartition("/")[0] for file in listed})
    has_a_file_a_day = len(folders) == 1 and len({file.day for file in listed if file.day}) > 1
    named = sorted(file.path for file in listed) if has_a_file_a_day else folders
    return {
        "first": named[0] if named else "",
        "last": named[-1] if named else "",
        "folders": len(folders),
        "files": len(listed),
        "bytes": sum(file.size for file in listed),
    }


def _files(source: SourceSettings, path: str, day: date | None) -> Found:
    entries = listing.listed(path)
    data = [entry for entry in entries if not entry.is_hidden]
    if not data:
        raise NotYetThereError(f"expected at least one {source.format} file at {path}, found none.")
    half_written = [entry.path for entry in data if entry.path.endswith(listing.HALF_WRITTEN)]
    if half_written:
        raise NotYetThereError(
            f"expected whole files, found {', '.join(half_written[:3])}, half-written by the name. Wait, or remove it."
        )
    deeper = [entry.path for entry in data if entry.depth > 1]
    if deeper and not path.endswith(listing.ANY_DEPTH):
        raise UserError(
            f"expected files, found a folder that nothing would be read from: {deeper[0]}. Move it up, or end the path in "
            f"{listing.ANY_DEPTH}, and files are read at any depth."
        )
    marker = source.success_marker
    if marker:
        marked = tuple(entry.path.removesuffix(marker) for entry in entries if PurePosixPath(entry.path).name == marker)
        folders = {posixpath.dirname(entry.path) for entry in data}
        unmarked = sorted(folder for folder in folders if not f"{folder}/".startswith(marked))
        # A path of files does not include their marker.
        if without := [folder for folder in unmarked if not listing.listed(f"{folder}/{marker}")]:
            raise NotYetThereError(
                f"expected the success marker {marker} in {', '.join(without)}, found none: not all is there yet."
            )
    hidden = [
        entry.path for entry in entries if entry.is_hidden and not _is_mark(PurePosixPath(entry.path).name, marker)
    ]
    return Found([SourceFile(entry.path, entry.size, entry.modified, day) for entry in data], hidden)


def _is_mark(name: str, marker: str | None) -> bool:
    """Return whether a file is known to hold no data: a marker, or a checksum of Hadoop's."""
    return name in (marker, SUCCESS) or name.endswith(".crc")


def _dated(path: str, day: date) -> str:
    for placeholder, value in zip(DATE_PARTS, (f"{day:%Y}", f"{day:%m}", f"{day:%d}"), strict=True):
        path = path.replace(placeholder, value)
    return path


def _days_on_disk(path: str) -> set[date]:
    """Return the days for which something matches a path with date parts."""
    glob = path.removesuffix(listing.ANY_DEPTH).rstrip("/")
    pattern = re.escape(glob)
    for placeholder, name, digits in zip(DATE_PARTS, "ymd", (4, 2, 2), strict=True):
        first, *others = pattern.split(re.escape(placeholder))
        pattern = first + f"(?P<{name}>\\d{{{digits}}})" + f"(?P={name})".join(others)
        glob = glob.replace(placeholder, "*")
    pattern = pattern.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    # An empty folder is no catalogue yet, and an object store has none; a broken link is one that cannot be read.
    present = [place for place in listing.expanded(glob) if not Path(place).is_dir() or any(Path(place).iterdir())]
    days = set()
    for place in present:
        named = re.match(pattern, place)
        if named:
            try:
                days.add(date(int(named["y"]), int(named["m"]), int(named["d"])))
            except ValueError:
                continue
    return days


def _first_few(lines: list[str], limit: int = 10) -> list[str]:
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"  {line}" for line in [*lines[:limit], *more]]
