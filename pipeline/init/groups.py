"""Groups the files below a folder into possible sources, each with the path that the configuration needs."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from components.example_gen import listing, reading
from components.example_gen.csv_lines import FileFaultError
from components.example_gen.listing import Entry
from components.example_gen.settings import SourceSettings
from components.example_gen.sources import SUCCESS
from schemas.errors import UserError

# 2026-11-24, 2026_11_24, 2026/11/24, 20261124, year=2026/month=11/day=24
DATE = re.compile(
    r"(?<!\d)(?P<before>year=)?(?P<y>(?:19|20)\d{2})(?P<one>[-_./]?)(?:month=)?(?P<m>\d{2})(?P=one)(?:day=)?(?P<d>\d{2})(?!\d)"
)
# A UUID or a number: names of the parts of one table.
NUMBERED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+")
HEADER_BYTES = 1 << 16
EARLIEST_YEAR = 1990


@dataclass(frozen=True)
class Group:
    """Files that may be one source.

    Attributes:
        name: its path relative to the folder.
        path: its path, in the form of `SourceSettings`.
        files: oldest first.
        days: the UTC days in the names, oldest first; empty if the path has no day.
        success_marker: the marker that lies beside every file.
    """

    name: str
    path: str
    files: list[Entry]
    days: list[date]
    success_marker: str | None = None


def groups(folder: str) -> list[Group]:
    """Find the possible sources below a folder.

    Raises:
        UserError: the folder does not exist, holds no file, or cannot be listed.
    """
    entries = listing.listed(folder)
    below = [(entry, str(PurePosixPath(entry.path).relative_to(folder))) for entry in entries]
    marked = {str(PurePosixPath(entry.path).parent) for entry, name in below if PurePosixPath(name).name == SUCCESS}
    by_path: dict[str, list[tuple[Entry, date | None]]] = defaultdict(list)
    by_template: dict[str, list[tuple[Entry, str, date | None]]] = defaultdict(list)
    for entry, name in below:
        if any(segment.startswith(listing.HIDDEN) for segment in PurePosixPath(name).parts):
            continue
        template, day = _template(name)
        by_template[NUMBERED.sub("*", template)].append((entry, template, day))
    if not by_template:
        hidden = f", except {len(entries)} whose names begin with _ or ." if entries else ""
        raise UserError(
            f"{folder}: looked for a log of interactions and a catalogue in CSV or Parquet, found no file{hidden}. "
            "Name the folder that holds them: ndr init FOLDER."
        )
    in_folder_a_day: dict[str, set[object]] = defaultdict(set)
    for pattern, members in by_template.items():
        if (day_folder := _day_folder(pattern)) is not None:
            in_folder_a_day[day_folder].add(_columns(max(entry.path for entry, _, _ in members)))
    for pattern, members in by_template.items():
        templates = {template for _, template, _ in members}
        path = pattern if len(templates) > 1 else templates.pop()
        day_folder = _day_folder(pattern)
        if day_folder is not None and len(in_folder_a_day[day_folder]) == 1:  # one table, in any number of files
            path = day_folder
        by_path[path] += [(entry, day) for entry, _, day in members]
    return [_group(folder, path, members, marked) for path, members in sorted(by_path.items())]


def _group(folder: str, path: str, members: Sequence[tuple[Entry, date | None]], marked: set[str]) -> Group:
    ordered = sorted(members, key=lambda member: (member[1] or date.min, member[0].path))
    files = [entry for entry, _ in ordered]
    has_marker = all(str(PurePosixPath(file.path).parent) in marked for file in files)
    return Group(
        path,
        f"{folder.rstrip('/')}/{path}",
        files,
        sorted({day for _, day in ordered if day}),
        SUCCESS if has_marker else None,
    )


def _day_folder(template: str) -> str | None:
    """Return the path of the folder of a day; None if the day is in the file's own name, or nowhere."""
    segments = PurePosixPath(template).parts
    dated = [number for number, segment in enumerate(segments[:-1]) if "{DD}" in segment]
    if not dated:
        return None
    return "/".join(segments[: dated[0] + 1]) + (listing.ANY_DEPTH if len(segments) > dated[0] + 2 else "")


def _columns(path: str) -> object:
    """Return what identifies a table: the names of its columns, or a text file's first line."""
    try:
        return tuple(reading.column_types(path, SourceSettings(path=path, format="parquet")))
    except FileFaultError:
        pass
    try:
        return reading.beginning(path, HEADER_BYTES).partition(b"\n")[0]
    except FileFaultError as error:
        return str(error)


def _template(name: str) -> tuple[str, date | None]:
    """Replace the parts of a path's first date, wherever it is; return the template and the date."""
    for match in DATE.finditer(name):
        try:
            day = date(int(match["y"]), int(match["m"]), int(match["d"]))
        except ValueError:
            continue
        if day.year >= EARLIEST_YEAR:
            head, between, behind = (
                match["before"] or "",
                *(name[match.end(left) : match.start(right)] for left, right in (("y", "m"), ("m", "d"))),
            )
            return name.replace(match[0], f"{head}{{YYYY}}{between}{{MM}}{behind}{{DD}}"), day
    return name, None
