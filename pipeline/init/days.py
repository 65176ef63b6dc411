"""Finds the UTC days of a log."""

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from components import utc
from components.example_gen.columns import Column
from components.example_gen.conversion import convert
from components.example_gen.settings import DATE_PARTS, WEEKDAYS
from pipeline.init.profiles import form
from pipeline.init.tables import Table, values
from schemas.errors import UserError

OWN_DAY = 0.5  # a file's name is its day if this share of the rows read is of that day
WEEKS = 2  # a day of the week is closed if this many weeks lack it


@dataclass(frozen=True)
class Days:
    """The days of a log.

    Attributes:
        first, last: UTC days.
        is_daily: whether every day has files of its own.
        closed: values of `data.closed`: days of the week and dates that have no file.
        why: the evidence, for a comment.
    """

    first: date
    last: date
    is_daily: bool
    closed: list[str | date]
    why: str

    @property
    def number(self) -> int:
        """The number of days from the first to the last."""
        return (self.last - self.first).days + 1


def days_of(table: Table, column: str, unit: str | None) -> Days:
    """Find the days of a log: by its file names if each file holds its own day, else by the times of all rows.

    Raises:
        UserError: no time can be read, or a file cannot be read.
    """
    group = table.group
    if group.days:
        times = _days(table, column, unit, table.columns[column])
        share = sum(times[utc.span(day)] for day in group.days) / max(1, times.total())
        if share >= OWN_DAY:
            why = f"the names of {len(group.files):,} files; {share:.0%} of the rows read are of these days"
            return Days(group.days[0], group.days[-1], True, _closed(group.days), why)
    latest = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=1)
    counted: Counter[int] = Counter()
    for raw in values(table, column):
        counted += _days(table, column, unit, raw)
    plausible = sorted(day for day in counted if utc.span(date(1990, 1, 1)) <= day <= utc.span(latest))
    if not plausible:
        raise UserError(
            f"{table.group.name}: looked for days in column {column}, found no time from 1990 to {latest}. Name the time column: "
            "--time COLUMN."
        )
    first, last = map(utc.day_of, (plausible[0], plausible[-1]))
    return Days(first, last, False, [], f"the times of {counted.total():,} rows")


def undated(path: str) -> str:
    """Return a path that matches the files of all days."""
    for placeholder in DATE_PARTS:
        path = path.replace(placeholder, "*")
    return path


def _days(table: Table, column: str, unit: str | None, raw: pa.Array) -> Counter[int]:
    """Count the rows of each day, by its span."""
    times = convert(Column("", column, "time", time_unit=unit or "s"), raw, form(table)).values.drop_null()
    spans, counts = np.unique(times.to_numpy() // utc.MICROSECONDS_A_DAY, return_counts=True)
    return Counter(dict(zip(spans.tolist(), counts.tolist(), strict=True)))


def _closed(days: list[date]) -> list[str | date]:
    """Return the days of the week without any file, and other missing days between the first and the last."""
    span = (days[-1] - days[0]).days + 1
    weekdays = {day.weekday() for day in days}
    closed = [n for n in range(7) if n not in weekdays] if span >= 7 * WEEKS else []
    between = (days[0] + timedelta(days=n) for n in range(span))
    present = set(days)
    dates = [day for day in between if day not in present and day.weekday() not in closed]
    return [*(WEEKDAYS[n] for n in closed), *dates]
