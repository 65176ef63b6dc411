"""Guesses advice about faulty values from the values themselves."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from components.example_gen.columns import Column
from components.example_gen.conversion import BRACKETS
from components.example_gen.scalars import MICROSECONDS, NULL_SPELLINGS, SPELLING, iso_microseconds

# A time in the right unit lies between these.
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
MISSING = "missing"
OUTSIDE = "outside [0, 1]"  # of a reward
NUMBER = re.compile(r"-?\d+(\.\d*)?")


def way_out(column: Column, reason: str, values: Sequence[str]) -> str:
    """Return advice about rows dropped for a reason; empty if there is none.

    Args:
        column: the column of the values.
        reason: as in the accounting.
        values: some of the faulty ones.
    """
    if reason == MISSING:
        condition = f"{{column: {column.source}, missing: false}}"
        return f"Where this is no fault, say `where: [{condition}]`: such rows are then not asked for."
    spellings = sorted(set(values) & set(NULL_SPELLINGS))
    if reason == SPELLING or (spellings and column.kind in ("number", "numbers", "time")):
        quoted = ", ".join(f"'{spelling}'" for spelling in spellings)
        return f"Say `null_values: [{quoted}]` where these stand for a missing value" + (
            ", `null_values: []` where they are ids." if reason == SPELLING else "."
        )
    if reason == OUTSIDE:
        return (
            "A reward is the weight of an interaction in training: 0 trains nothing, 1 is a whole one. Say in "
            "features.yaml what is worth 1, `reward: {column: ..., over: 100, clip: true}`, with `scale: log` where few have much."
        )
    if reason == "blanks around it":
        return "Say `trim: true`, or write it without blanks."
    if column.kind == "time" and (units := {unit_of(value) for value in values} - {None, column.time_unit}):
        (unit, *others) = sorted(str(name) for name in units)
        looks = "ISO 8601" if unit == "iso" else f"{unit} since 1970"
        return (
            f"Several units are mixed: {', '.join([unit, *others])} beside {column.time_unit}."
            if others
            else f"'{next(v for v in values if unit_of(v) == unit)}' looks like {looks}; where all are, say `time_unit: {unit}`."
        )
    if column.kind == "time" and column.time_unit == "iso":
        return "ISO 8601 is read, such as 2026-11-24T01:00:00Z, 2026-11-24 01:00:00+01:00 or 2026-11-24 01:00:00 UTC."
    if column.kind == "number" and any(re.fullmatch(r"-?\d+,\d+", value) for value in values):
        return "Write a decimal point, not a comma."
    shapes = sorted({shape for value in values if (shape := shape_of(value))}) if column.kind == "vector" else []
    if shapes:
        separator, size = shapes[0]
        if reason.startswith("another length") and len(shapes) == 1 and size != column.size:
            return f"These have {size} numbers; say `size: {size}` where all have."
        if reason == "not a number" and separator != column.separator:
            return f'Say `separator: "{separator}"` where numbers are divided so.'
    if reason.startswith("beyond"):
        return "A missing number is an empty value or NaN; or name what stands for it in `null_values`."
    return ""


def shape_of(value: str) -> tuple[str, int] | None:
    """Return the separator and the number of values of a vector written as text; None if it is not a vector."""
    inner = value.strip(BRACKETS)
    for separator in ("|", ";", ",", " "):
        numbers = inner.split() if separator == " " else inner.split(separator)
        if len(numbers) > 1 and all(map(_is_number, numbers)):
            return separator, len(numbers)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unit_of(value: str) -> str | None:
    """Guess the unit of a time: the one that gives a date of our age."""
    if NUMBER.fullmatch(value):
        seconds = float(value)
        for unit, microseconds in MICROSECONDS.items():
            if EARLIEST.timestamp() <= seconds * microseconds / MICROSECONDS["s"] < LATEST.timestamp():
                return unit
        return None
    try:
        iso_microseconds(value.encode())
    except ValueError:
        return None
    return "iso"
