"""Which files hold a day."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path, PurePosixPath

from apache_beam.io.filesystem import BeamIOError, FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.example_gen.settings import DATE_PARTS, ExampleGenSettings, SourceSettings
from schemas.errors import UserError

FILES_PROPERTY = "input_files"
EPOCH = date(1970, 1, 1)
MICROSECONDS_A_DAY = 86_400_000_000
MICROSECONDS_AN_HOUR = 3_600_000_000


@dataclass(frozen=True)
class SourceFile:
    """A file of the data.

    Attributes:
        path: its path.
        size: bytes.
        modified: seconds since 1970-01-01 UTC.
        day: the UTC day it holds; None where a file holds many.
    """

    path: str
    size: int
    modified: float
    day: date | None


@dataclass(frozen=True)
class Window:
    """The UTC days of a run.

    Attributes:
        history_start: the first day that is read.
        start: the first day whose interactions become examples.
        day: the last day, the run's own.
    """

    history_start: date
    start: date
    day: date

    @classmethod
    def of(cls, settings: ExampleGenSettings, day: date, goes_on: bool) -> "Window":
        """The window that ends with a day.

        Args:
            settings: say how long it is.
            day: the run's.
            goes_on: whether training goes on from an earlier model.
        """
        days = settings.window_days if goes_on else settings.catch_up_days or settings.window_days
        start = day - timedelta(days=days - 1)
        history_start = start - timedelta(days=settings.history_days)
        if settings.first_day:
            start, history_start = max(start, settings.first_day), max(history_start, settings.first_day)
        return cls(history_start, start, day)

    @property
    def days(self) -> list[date]:
        """Every day that is read, oldest first."""
        return [self.history_start + timedelta(days=n) for n in range((self.day - self.history_start).days + 1)]

    @property
    def end_microseconds(self) -> int:
        """The first instant after the window."""
        return microseconds(self.day) + MICROSECONDS_A_DAY


def span(day: date) -> int:
    """TFX's span: days since 1970-01-01."""
    return (day - EPOCH).days


def microseconds(day: date) -> int:
    """The first instant of a UTC day, in microseconds since 1970-01-01."""
    return span(day) * MICROSECONDS_A_DAY


def interaction_files(settings: ExampleGenSettings, window: Window) -> list[SourceFile]:
    """The files of a run's window.

    Raises:
        UserError: one line for each day without files or without its success marker.
    """
    source = settings.interactions
    if settings.first_day and window.day < settings.first_day:
        raise UserError(f"There is no log of {window.day}: data.first_day is {settings.first_day}.")
    if not source.is_daily:
        return _files(source, source.path, None)
    found: list[SourceFile] = []
    faults: list[str] = []
    for each in window.days:
        try:
            found += _files(source, _dated(source.path, each), each)
        except UserError as error:
            faults.append(f"{each}: {error}")
    if faults:
        hint = (
            "Wait until they are written, or set data.first_day, data.window_days or data.catch_up_days where there never was "
            "such a day."
        )
        raise UserError("\n".join([f"Interactions of {len(faults)} day(s) are missing:", *_first_few(faults), hint]))
    return found


def catalogue_files(settings: ExampleGenSettings, day: date) -> list[SourceFile]:
    """The files of the newest catalogue that is not after a day.

    Raises:
        UserError: there is none, or it is without its success marker.
    """
    source = settings.catalogue
    if not source.is_daily:
        return _files(source, source.path, None)
    snapshots = [each for each in _days_on_disk(source.path) if each <= day]
    if not snapshots:
        raise UserError(f"No catalogue of {day} or before at {source.path}.")
    newest = max(snapshots)
    return _files(source, _dated(source.path, newest), newest)


def fingerprint(files: list[SourceFile]) -> str:
    """Changes when a file comes, goes, or is written again."""
    content = "\n".join(f"{file.path}\t{file.size}\t{file.modified:.6f}" for file in files)
    return hashlib.sha256(content.encode()).hexdigest()


def fingerprint_of(find: Callable[[], list[SourceFile]]) -> str:
    """The fingerprint of what is found, or the fault where something is missing."""
    try:
        return fingerprint(find())
    except UserError as error:
        return f"missing: {error}"


def summary(files: Iterable[SourceFile]) -> dict[str, str | int]:
    """What is recorded of files: how many `folders`, the `first` and the `last` of them by name, how many `files` and `bytes`."""
    found = list(files)
    folders = sorted({file.path.rpartition("/")[0] for file in found})
    return {
        "first": folders[0] if folders else "",
        "last": folders[-1] if folders else "",
        "folders": len(folders),
        "files": len(found),
        "bytes": sum(file.size for file in found),
    }


def _files(source: SourceSettings, path: str, day: date | None) -> list[SourceFile]:
    matches = _match(path.rstrip("/") + "/*") or _match(path)
    folder_of = {PurePosixPath(match.path).parent for match in matches}
    data = [match for match in matches if not PurePosixPath(match.path).name.startswith(("_", "."))]
    if not data:
        raise UserError(f"expected at least one {source.format} file at {path}, found none.")
    unreadable = sorted(repr(match.path) for match in data if match.path.encode(errors="ignore").decode() != match.path)
    if unreadable:
        raise UserError(f"expected names in UTF-8, found {', '.join(unreadable)}. Rename it.")
    nested = (match.path for match in _match(path.rstrip("/") + "/*/*"))
    deeper = [found for found in nested if not re.search("/[_.]", found.removeprefix(path))]
    if deeper:
        raise UserError(f"expected files, found a folder that nothing would be read from: {deeper[0]}. Move it up.")
    marker = source.success_marker
    without = sorted(str(folder) for folder in folder_of if marker and not _match(f"{folder}/{marker}"))
    if without:
        raise UserError(
            f"expected the success marker {marker} in {', '.join(without)}, found none: not all is there yet."
        )
    files = [SourceFile(m.path, m.size_in_bytes, m.last_updated_in_seconds, day) for m in data]
    return sorted(files, key=lambda file: file.path)


def _match(pattern: str) -> list[FileMetadata]:
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except (BeamIOError, ValueError) as error:
        raise UserError(f"{pattern}: cannot be listed: {error}.") from error
    return [metadata for metadata in found if not Path(metadata.path).is_dir()]


def _dated(path: str, day: date) -> str:
    for part, value in zip(DATE_PARTS, (f"{day:%Y}", f"{day:%m}", f"{day:%d}"), strict=True):
        path = path.replace(part, value)
    return path


def _days_on_disk(path: str) -> set[date]:
    """The days for which something matches a path with date parts."""
    pattern, glob = re.escape(path.rstrip("/")), path.rstrip("/")
    for part, name, digits in zip(DATE_PARTS, "ymd", (4, 2, 2), strict=True):
        first, *others = pattern.split(re.escape(part))
        pattern = first + f"(?P<{name}>\\d{{{digits}}})" + f"(?P={name})".join(others)
        glob = glob.replace(part, "*")
    pattern = pattern.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    days = set()
    for match in _match(glob) + _match(glob + "/*"):
        named = re.match(pattern, match.path)
        if named:
            try:
                days.add(date(int(named["y"]), int(named["m"]), int(named["d"])))
            except ValueError:
                continue
    return days


def _first_few(lines: list[str], limit: int = 10) -> list[str]:
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return [f"  {line}" for line in [*lines[:limit], *more]]
