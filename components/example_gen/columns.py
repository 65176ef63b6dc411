"""The columns to read, their conversions, and checks of a file's columns and types."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from schemas.features import (
    CANDIDATE_ID,
    QUERY_ID,
    REWARD,
    TIMESTAMP,
    TITLE,
    WEIGHTS_SUFFIX,
    Feature,
    FeatureSpec,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    TextFeature,
    VectorFeature,
)

OVER, EVENT = "_over", "_event"  # columns of the reward; not part of an example
BLOCKED = "_blocked"  # a number; not part of an example

Kind = Literal["id", "ids", "text", "number", "numbers", "vector", "time", "title", "compared"]
TYPES: dict[Kind, pa.DataType] = {
    "id": pa.binary(),
    "ids": pa.list_(pa.binary()),
    "text": pa.binary(),
    "number": pa.float32(),
    "numbers": pa.list_(pa.float32()),
    "vector": pa.list_(pa.float32()),
    "time": pa.int64(),
    "title": pa.binary(),
    "compared": pa.struct([("whole", pa.int64()), ("real", pa.float64())]),
}
EXPECTED: dict[Kind, str] = {
    "id": "text or whole numbers",
    "ids": "text, whole numbers, or lists of them",
    "text": "text or whole numbers",
    "number": "numbers",
    "numbers": "numbers, lists of them, or text",
    "vector": "lists of numbers, or text",
    "time": "a timestamp",
    "title": "text or numbers",
    "compared": "numbers",
}
# The largest number: INT64_MIN and FLT_MAX stand for missing numbers, and the squares of larger ones are not finite.
LARGEST = 2.0**63
# The largest number that feeds a tower unscaled: the squares of values computed from a larger one are not finite.
LARGEST_UNSCALED = 1e15


@dataclass(frozen=True)
class Column:
    """A column to read, and its conversion.

    Attributes:
        name: the name after the conversion.
        source: its name in the data.
        kind: the kind of its values; TYPES gives the Arrow type of each.
        separator: separates the values in a text.
        time_unit: of times that are numbers; `iso` for text.
        required: whether a row without it is a fault.
        minimum: of a number; a lower one is a fault.
        largest: of a number's magnitude; a larger one is a fault.
        size: of a vector; another number of values is a fault.
    """

    name: str
    source: str
    kind: Kind
    separator: str = "|"
    time_unit: str = "s"
    required: bool = False
    minimum: float | None = None
    largest: float = LARGEST
    size: int = 0

    @property
    def unit(self) -> str:
        """The expected unit of a time, for error messages."""
        return f" in {self.time_unit}" if self.kind == "time" else ""


def interaction_columns(spec: FeatureSpec) -> list[Column]:
    """List the columns of an interaction."""
    keys = spec.interactions
    columns = [
        Column(QUERY_ID, keys.user, "id", required=True),
        Column(CANDIDATE_ID, keys.item, "id", required=True),
        Column(TIMESTAMP, keys.time, "time", time_unit=keys.time_unit, required=True),
    ]
    if keys.reward:
        rule = keys.reward_rule
        columns.append(Column(REWARD, rule.column, "number", required=True))
        if isinstance(rule.over, str):
            columns.append(Column(OVER, rule.over, "number", required=True))
    if keys.event:
        columns.append(Column(EVENT, keys.event.column, "id", required=True))
    return columns + _feature_columns(spec.logged_query)


def user_columns(spec: FeatureSpec) -> list[Column]:
    """List the columns of a user; empty if the specification has no users' table."""
    if spec.users is None:
        return []
    return [Column(QUERY_ID, spec.users.user, "id", required=True), *_feature_columns(spec.user_features)]


def catalogue_columns(spec: FeatureSpec) -> list[Column]:
    """List the columns of a catalogue entry."""
    columns = [Column(CANDIDATE_ID, spec.catalogue.item, "id", required=True)]
    if spec.catalogue.title:
        columns.append(Column(TITLE, spec.catalogue.title, "title"))
    if spec.catalogue.blocked:
        columns.append(Column(BLOCKED, spec.catalogue.blocked, "number"))
    filters = [
        Column(name, filter_column.column or name, filter_column.kind, filter_column.separator)
        for name, filter_column in spec.catalogue.filters.items()
        if name not in spec.item
    ]
    return columns + _feature_columns(spec.item) + filters


def joined_columns(spec: FeatureSpec) -> list[Column]:
    """List the columns of a catalogue entry that interactions repeat. Vectors and texts would make them many times as large."""
    joined = columns_of([name for name in spec.item if name not in spec.kept_in_catalogue], catalogue_columns(spec))
    return [column for column in catalogue_columns(spec) if column.name in joined]


def columns_of(names: Collection[str], columns: list[Column]) -> list[str]:
    """Return the output columns of features, including weights."""
    return [
        column.name for column in columns if column.name.removesuffix(WEIGHTS_SUFFIX) in names or column.name in names
    ]


def type_faults(columns: list[Column], types: Mapping[str, pa.DataType], as_text: bool) -> list[str]:
    """List faults in the columns of a file before any row of it is read, one sentence each.

    Args:
        columns: the wanted columns.
        types: the existing ones.
        as_text: whether values are text that still has to be converted, as in CSV.
    """
    faults = []
    for column in {column.source: column for column in columns}.values():
        if column.source not in types:
            near = difflib.get_close_matches(column.source, types, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            if near and near[0].strip() == column.source:
                hint = " without blanks around it; say `trim: true`, or write it so"
            faults.append(f"expected a column {column.source}{hint}, found {', '.join(types)}")
    for column in columns:
        kind = types.get(column.source)
        if kind is not None and not as_text and not _is_readable(column, kind):
            faults.append(
                f"expected {EXPECTED[column.kind]}{column.unit} in column {column.source}, found {kind}{_way_out(column, kind)}"
            )
    return faults


def _way_out(column: Column, kind: pa.DataType) -> str:
    if column.kind == "time" and is_text(kind):
        return "; say `time_unit: iso` where it is ISO 8601"
    if column.kind == "time":
        return "; write a timestamp, or a number of the time_unit"
    if column.kind == "id" and is_list(kind):
        return "; a feature of kind `ids` has several values"
    if column.kind in ("number", "compared") and is_text(kind):
        return "; write numbers as such in Parquet"
    if pa.types.is_fixed_size_binary(kind):
        return "; write it as text, a UUID in its usual form"
    return ""


def _feature_columns(features: Mapping[str, Feature]) -> list[Column]:
    columns = []
    for name, feature in features.items():
        source = feature.column or name
        match feature:
            case NumberFeature():
                largest = LARGEST_UNSCALED if feature.scale == "none" else LARGEST
                minimum = 0.0 if feature.scale == "log" else None
                columns.append(Column(name, source, "number", minimum=minimum, largest=largest))
            case IdFeature() if not feature.derive:
                columns.append(Column(name, source, "id"))
            case IdsFeature():
                columns.append(Column(name, source, "ids", feature.separator))
                if feature.weights:
                    columns.append(Column(name + WEIGHTS_SUFFIX, feature.weights, "numbers", feature.separator))
            case TextFeature():
                columns.append(Column(name, source, "text"))
            case VectorFeature():
                columns.append(Column(name, source, "vector", feature.separator, size=feature.size))
            case HistoryFeature() if feature.column:
                columns.append(Column(name, source, "ids", feature.separator))
            case _:  # derived
                pass
    return columns


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type holds text or bytes."""
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _is_id(kind: pa.DataType) -> bool:
    """Return whether ids can be read from a type. Floats can: pandas makes them of whole numbers with missing values."""
    types = pa.types
    return is_text(kind) or bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _is_readable(column: Column, kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    inner = kind.value_type if is_list(kind) else None
    match column.kind:
        case "id" | "text":
            return _is_id(kind)
        case "ids":
            return _is_id(kind if inner is None else inner)
        case "number" | "compared":
            return _is_number(kind)
        case "numbers":
            return _is_number(kind) or is_text(kind) or (inner is not None and _is_number(inner))
        case "vector":
            return is_text(kind) or (inner is not None and _is_number(inner))
        case "time":
            if pa.types.is_timestamp(kind):
                return True
            return is_text(kind) if column.time_unit == "iso" else _is_number(kind)
        case "title":
            return is_text(kind) or _is_number(kind)


def is_list(kind: pa.DataType) -> bool:
    """Return whether an Arrow type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
