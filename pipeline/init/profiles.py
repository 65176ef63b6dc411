"""Guesses what the values of a column are, converting them as the pipeline would."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen.columns import Column, Kind, is_list, is_text
from components.example_gen.conversion import BRACKETS, Converted, convert
from components.example_gen.scalars import Form
from components.example_gen.ways_out import shape_of, unit_of
from pipeline.init.tables import Table

MAX_ID_BYTES = 1024
MOST = 0.99  # share of the values that must be alike
SEPARATORS = ("|", ";", ",")  # of lists; vectors may be separated by blanks too
SEVERAL = 0.1  # share of the values that must hold a separator
LOOKED_AT = 5_000  # values that are inspected one by one
SKEWED = 5.0  # a number is scaled by a logarithm if its maximum is more than this times its mean
WORDS = 1.5  # mean number of words of a text

Looks = Literal["nothing", "time", "vector", "ids", "number", "text", "id", "unknown"]


@dataclass(frozen=True)
class Profile:
    """What the sample of a column shows.

    Attributes:
        name: the column's name.
        looks: what it seems to be.
        why: the evidence, for a comment.
        values: the number of values present.
        missing: the number of missing values.
        distinct: the number of distinct values.
        unit: the unit of a time; None for a timestamp, which needs none.
        separator: the separator of a vector or list in text; empty for a list of Parquet.
        size: the length of a vector, or of the longest list.
        numbers: all values of a number.
        is_whole: whether the numbers may be ids.
        has_blanks: whether ids have blanks around them.
    """

    name: str
    looks: Looks
    why: str
    values: int
    missing: int
    distinct: int
    unit: str | None = None
    separator: str = ""
    size: int = 0
    numbers: tuple[float, ...] = ()
    is_whole: bool = False
    has_blanks: bool = False

    @property
    def may_be_key(self) -> bool:
        """Whether the values may be ids."""
        return self.looks in ("id", "text") or (self.looks == "number" and self.is_whole)

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return self.values > 1 and not self.missing and self.distinct == self.values

    @property
    def is_skewed(self) -> bool:
        """Whether a few values are much greater than the rest, and none is negative."""
        return min(self.numbers) >= 0 and max(self.numbers) > SKEWED * float(np.mean(self.numbers))


def tokens(name: str) -> list[str]:
    """Split a column's name into words, in lower case."""
    return re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())


def form(table: Table) -> Form:
    """Return how the values of a table are written, as far as known."""
    return Form(MAX_ID_BYTES, table.source.null_values or (), trim=True)


def as_ids(table: Table, raw: pa.Array) -> pa.Array:
    """Convert a column's values to ids: binary, null if missing."""
    return convert(Column("", "", "id"), raw, form(table)).values


def profiles(table: Table) -> dict[str, Profile]:
    """Profile each column."""
    return {name: _profile(table, name, raw) for name, raw in table.columns.items()}


def _profile(table: Table, name: str, raw: pa.Array) -> Profile:
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if is_list(raw.type):
        return _list_profile(name, raw)
    if not (is_text(raw.type) or _is_numeric(raw.type) or pa.types.is_timestamp(raw.type)):
        missing = raw.null_count
        looks: Looks = "nothing" if missing == len(raw) else "unknown"
        return Profile(name, looks, f"a column of {raw.type}", len(raw) - missing, missing, 0)
    texts = _texts(table, raw)
    present = texts.drop_null()
    missing, distinct = texts.null_count, pc.count_distinct(present).as_py()

    def profile(looks: Looks, why: str, **more: object) -> Profile:
        return Profile(name, looks, why, len(present), missing, distinct, **more)  # type: ignore[arg-type]

    if not len(present):
        return profile("nothing", "no value in any row that was read")
    if pa.types.is_timestamp(raw.type):
        return profile("time", "a timestamp by its type")
    shown: list[str] = present.slice(0, LOOKED_AT).to_pylist()
    example = f"such as {shown[0][:40]!r}"
    if unit := _alike(Counter(unit_of(value) for value in shown), len(shown)):
        looks_like = "ISO 8601" if unit == "iso" else f"{unit} since 1970"
        return profile("time", f"{looks_like}, {example}", unit=unit, is_whole=unit != "iso")
    numbers = _converted(table, raw, "number")
    if _fits(numbers):
        values = tuple(numbers.values.drop_null().to_pylist())
        if tokens(name)[-1:] == ["id"] and _fits(_converted(table, raw, "id")):
            return profile("id", f"{distinct:,} distinct values, {example}")
        whole = _fits(_converted(table, raw, "id")) and all(value == int(value) for value in values)
        return profile("number", f"numbers, {min(values):g} to {max(values):g}", numbers=values, is_whole=whole)
    if is_text(raw.type):
        shape = _alike(Counter(map(shape_of, shown)), len(shown))
        if shape and (shape[1] > 2 or any("." in value for value in shown)):
            why = f"{shape[1]} numbers each, {example}"
            return profile("vector", why, separator=shape[0], size=shape[1])
        for separator in SEPARATORS:
            if found_list := _several(shown, separator):
                size, has_blanks = found_list
                why = f"a list: {separator!r} separates recurring values, {example}"
                return profile("ids", why, separator=separator, size=size, has_blanks=has_blanks)
        words = float(np.mean([len(re.findall(r"\w+", value)) for value in shown]))
        if words > WORDS and distinct > len(present) / 2:
            return profile("text", f"{words:.1f} words on average, {example}")
    has_blanks = any(value != value.strip() for value in shown)
    return profile("id", f"{distinct:,} distinct values, {example}", has_blanks=has_blanks)


def _list_profile(name: str, raw: pa.Array) -> Profile:
    inner = raw.type.value_type
    lengths = pc.list_value_length(raw).drop_null()
    lengths = lengths.filter(pc.greater(lengths, 0))
    missing, rows = len(raw) - len(lengths), len(lengths)
    if not rows:
        return Profile(name, "nothing", "no value in any row that was read", 0, missing, 0)
    size = pc.max(lengths).as_py()
    distinct = pc.count_distinct(raw.flatten()).as_py() if is_text(inner) or _is_numeric(inner) else 0
    if pa.types.is_floating(inner):
        if pc.min(lengths).as_py() == size:
            return Profile(name, "vector", f"lists of {size} {inner} each", rows, missing, distinct, size=size)
        return Profile(name, "unknown", f"lists of {inner} of several lengths", rows, missing, distinct)
    if distinct:
        return Profile(name, "ids", f"lists of {inner}, at most {size}", rows, missing, distinct, size=size)
    return Profile(name, "unknown", f"lists of {inner}", rows, missing, 0)


def _several(shown: list[str], separator: str) -> tuple[int, bool] | None:
    """Return the length of the longest list and whether its values have blanks around them; None if these are not lists."""
    several = [value for value in shown if separator in value]
    if len(several) < SEVERAL * len(shown):
        return None
    pieces = [piece for value in shown for piece in value.strip(BRACKETS).split(separator)]
    distinct = len({piece.strip() for piece in pieces})
    # Values of a list are short and recur with different neighbours; clauses of a sentence do not.
    is_list_of_ids = distinct < len(pieces) / 2 and distinct < len(set(shown)) + len(several)
    if not is_list_of_ids:
        return None
    return max(value.count(separator) + 1 for value in shown), any(piece != piece.strip() for piece in pieces)


def _alike(counted: Counter[Any], among: int) -> Any:
    """Return the value that nearly all share, else None."""
    ((most, times),) = counted.most_common(1)
    return most if times >= MOST * among else None


def _converted(table: Table, raw: pa.Array, kind: Kind) -> Converted:
    return convert(Column("", "", kind), raw, form(table))


def _fits(converted: Converted) -> bool:
    faults = sum(int(mask.sum()) for mask in converted.faults.values())
    return faults <= (1 - MOST) * len(converted.values) and converted.values.null_count < len(converted.values)


def _texts(table: Table, raw: pa.Array) -> pa.Array:
    """Convert the values to text, null if missing."""
    if not is_text(raw.type):
        return as_ids(table, raw).cast(pa.string()) if pa.types.is_integer(raw.type) else raw.cast(pa.string())
    raw = raw.cast(pa.binary())
    shown = [None if value is None else value.decode("utf-8", "replace") for value in raw.to_pylist()]
    nothing = {"", *(table.source.null_values or ())}
    return pa.array([None if value is None or value.strip() in nothing else value for value in shown], pa.string())


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )
