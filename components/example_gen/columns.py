"""Raw columns to typed ones; a value that cannot be one is a fault of its row, not of the run."""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
)

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
Kind = Literal["id", "ids", "number", "numbers", "time"]
TYPES: dict[Kind, pa.DataType] = {
    "id": pa.binary(),
    "ids": pa.list_(pa.binary()),
    "number": pa.float32(),
    "numbers": pa.list_(pa.float32()),
    "time": pa.int64(),
}
EXPECTED: dict[Kind, str] = {
    "id": "text or whole numbers",
    "ids": "text, whole numbers, or lists of them",
    "number": "numbers",
    "numbers": "numbers, lists of them, or text",
    "time": "a timestamp",
}


@dataclass(frozen=True)
class Column:
    """One column to read, and what it becomes.

    Attributes:
        name: of what it becomes.
        source: its name in the data.
        kind: what its values are; TYPES gives the Arrow type of each.
        separator: between the values of a text that holds several.
        time_unit: of times that are numbers; `iso` for text.
        required: whether a row without it is at fault.
        minimum: of a number; a lower one is at fault.
    """

    name: str
    source: str
    kind: Kind
    separator: str = "|"
    time_unit: str = "s"
    required: bool = False
    minimum: float | None = None


@dataclass(frozen=True)
class Converted:
    """A typed column.

    Attributes:
        values: of the type that TYPES gives; null where nothing came or what came is at fault.
        faults: the mask of rows at fault for each reason.
    """

    values: pa.Array
    faults: dict[str, NDArray[np.bool_]]


def interaction_columns(spec: FeatureSpec) -> list[Column]:
    """What is read of an interaction."""
    keys = spec.interactions
    columns = [
        Column(QUERY_ID, keys.user, "id", required=True),
        Column(CANDIDATE_ID, keys.item, "id", required=True),
        Column(TIMESTAMP, keys.time, "time", time_unit=keys.time_unit, required=True),
    ]
    if keys.reward:
        columns.append(Column(REWARD, keys.reward, "number", required=True))
    return columns + _feature_columns(spec.query)


def catalogue_columns(spec: FeatureSpec) -> list[Column]:
    """What is read of a catalogue entry."""
    columns = [Column(CANDIDATE_ID, spec.catalogue.item, "id", required=True)]
    if spec.catalogue.title:
        columns.append(Column(TITLE, spec.catalogue.title, "id"))
    return columns + _feature_columns(spec.item)


def type_faults(columns: list[Column], found: Mapping[str, pa.DataType], is_text: bool) -> list[str]:
    """What is wrong with the columns of a file before any row of it is read, one sentence each.

    Args:
        columns: those that are wanted.
        found: those that are there.
        is_text: whether values come as text that is still to be read, as CSV's do.
    """
    faults = []
    for column in {column.source: column for column in columns}.values():
        if column.source not in found:
            near = difflib.get_close_matches(column.source, found, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            faults.append(f"expected a column {column.source}{hint}, found {', '.join(found)}")
    for column in columns:
        kind = found.get(column.source)
        if kind is not None and not is_text and not _is_readable(column, kind):
            faults.append(f"expected {EXPECTED[column.kind]}{_unit(column)} in column {column.source}, found {kind}")
    return faults


def convert(column: Column, raw: pa.Array, max_id_bytes: int) -> Converted:
    """Makes a typed column of a raw one.

    Args:
        column: what is wanted.
        raw: [rows], binary where it comes from CSV, else of a type without `type_faults`.
        max_id_bytes: a longer id is a fault.
    """
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if pa.types.is_null(raw.type):  # how Parquet has a column of nothing
        raw = raw.cast(pa.binary())
    raw = _without_blanks(raw)
    match column.kind:
        case "id":
            values, wrong = _ids(raw)
            faults = {"not UTF-8": wrong, f"longer than {max_id_bytes} bytes": _longer(values, max_id_bytes)}
        case "ids":
            values, faults = _several(raw, column.separator, _ids, "not UTF-8")
            faults[f"longer than {max_id_bytes} bytes"] = _any_in_list(values, _longer(values.values, max_id_bytes))
        case "number":
            values, wrong = _numbers(raw)
            faults = {"not a number": wrong}
            if column.minimum is not None:
                below = pc.less(values, pa.scalar(column.minimum, pa.float32())).fill_null(False)
                faults[f"below {column.minimum:g}"] = below.to_numpy(zero_copy_only=False)
        case "numbers":
            values, faults = _several(raw, column.separator, _numbers, "not a number")
        case "time":
            values, wrong = _times(raw, column.time_unit)
            faults = {f"not a time{_unit(column)}": wrong}
    if column.required:
        faulty = np.logical_or.reduce(list(faults.values()))
        faults["missing"] = pc.is_null(values).to_numpy(zero_copy_only=False) & ~faulty
    return Converted(values, faults)


def _feature_columns(features: Mapping[str, Feature]) -> list[Column]:
    columns = []
    for name, feature in features.items():
        source = feature.column or name
        match feature:
            case NumberFeature():
                columns.append(Column(name, source, "number", minimum=0.0 if feature.scale == "log" else None))
            case IdFeature() if not feature.derive:
                columns.append(Column(name, source, "id"))
            case IdsFeature():
                columns.append(Column(name, source, "ids", feature.separator))
                if feature.weights:
                    columns.append(Column(name + WEIGHTS_SUFFIX, feature.weights, "numbers", feature.separator))
            case HistoryFeature() if feature.column:
                columns.append(Column(name, source, "ids", feature.separator))
            case _:  # derived
                pass
    return columns


def _unit(column: Column) -> str:
    return f" in {column.time_unit}" if column.kind == "time" else ""


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _is_readable(column: Column, kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        return True
    inner = kind.value_type if _is_list(kind) else None
    match column.kind:
        case "id":
            return _is_id(kind)
        case "ids":
            return _is_id(kind if inner is None else inner)
        case "number":
            return _is_number(kind)
        case "numbers":
            return _is_number(kind) or _is_text(kind) or (inner is not None and _is_number(inner))
        case "time":
            if pa.types.is_timestamp(kind):
                return True
            return _is_text(kind) if column.time_unit == "iso" else _is_number(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _none(values: pa.Array) -> NDArray[np.bool_]:
    return np.zeros(len(values), bool)


def _without_blanks(raw: pa.Array) -> pa.Array:
    """An empty text is a missing value."""
    if not _is_text(raw.type):
        return raw
    return pc.if_else(pc.equal(pc.binary_length(raw), 0), pa.scalar(None, raw.type), raw)


def _longer(values: pa.Array, limit: int) -> NDArray[np.bool_]:
    longer: NDArray[np.bool_] = (
        pc.greater(pc.binary_length(values), limit).fill_null(False).to_numpy(zero_copy_only=False)
    )
    return longer


def _ids(raw: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    if pa.types.is_integer(raw.type):
        return raw.cast(pa.string()).cast(pa.binary()), _none(raw)
    raw = raw.cast(pa.binary())
    return _each(raw, lambda values: values.cast(pa.string()).cast(pa.binary()), _checked_utf8, pa.binary())


def _checked_utf8(value: bytes) -> bytes:
    value.decode("utf-8")
    return value


def _numbers(raw: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    if _is_text(raw.type):
        values, wrong = _each(
            raw.cast(pa.binary()), lambda v: v.cast(pa.string()).cast(pa.float32()), _float, pa.float32()
        )
    else:
        values, wrong = raw.cast(pa.float32(), safe=False), _none(raw)  # past 2^24 to the nearest
    # NaN is how pandas writes a missing number; infinity is nobody's number.
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float32()), values)
    infinite: NDArray[np.bool_] = pc.is_inf(values).fill_null(False).to_numpy(zero_copy_only=False)
    return values, wrong | infinite


def _times(raw: pa.Array, unit: str) -> tuple[pa.Array, NDArray[np.bool_]]:
    """To int64 microseconds since 1970-01-01 UTC."""
    if pa.types.is_timestamp(raw.type):
        zone = raw.type.tz
        return raw.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()), _none(raw)
    if unit == "iso":
        zoned = pa.timestamp("us", "UTC")
        return _each(
            raw.cast(pa.binary()), lambda v: v.cast(pa.string()).cast(zoned).cast(pa.int64()), _iso, pa.int64()
        )
    factor = MICROSECONDS[unit]

    def scaled(values: pa.Array) -> pa.Array:
        whole = (values.cast(pa.string()) if _is_text(values.type) else values).cast(pa.int64())
        return pc.multiply_checked(whole, factor)

    return _each(raw, scaled, lambda value: _whole(_float(value) * factor), pa.int64())


def _float(value: Any) -> float:
    if isinstance(value, bytes) and b"_" in value:  # which Python allows
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _iso(value: bytes) -> int:
    moment = datetime.fromisoformat(value.decode("utf-8").strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * MICROSECONDS["s"])


def _whole(value: float) -> int:
    if not math.isfinite(value) or abs(value) >= 2**63:
        raise ValueError(f"{value} is no time")
    return round(value)


def _each(
    raw: pa.Array, fast: Callable[[pa.Array], pa.Array], slow: Callable[[Any], Any], kind: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Converts all at once, or, where a value is at fault, one by one to find which.

    Returns:
        The values, null where at fault, and the mask of those at fault.
    """
    try:
        return fast(raw), _none(raw)
    except pa.ArrowInvalid:
        values: list[Any] = []
        wrong = _none(raw)
        for position, value in enumerate(raw.to_pylist()):
            try:
                values.append(None if value is None else slow(value))
            except (ValueError, OverflowError):
                values.append(None)
                wrong[position] = True
        return pa.array(values, kind), wrong


def _several(
    raw: pa.Array,
    separator: str,
    convert_values: Callable[[pa.Array], tuple[pa.Array, NDArray[np.bool_]]],
    reason: str,
) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """A list column from lists, from texts of several values, or from single values."""
    if _is_list(raw.type):
        lists = raw.cast(pa.list_(raw.type.value_type))
    elif _is_text(raw.type):
        lists = pc.split_pattern(raw.cast(pa.binary()), separator.encode())
    else:
        single = pa.ListArray.from_arrays(np.arange(len(raw) + 1, dtype=np.int32), raw)
        lists = pc.if_else(pc.is_null(raw), pa.scalar(None, single.type), single)
    lists = pa.ListArray.from_arrays(*_offsets_and_values(lists), mask=pc.is_null(lists))
    values, wrong = convert_values(_without_blanks(lists.values))
    typed = pa.ListArray.from_arrays(lists.offsets, values, mask=pc.is_null(lists))
    return _without_null_values(typed), {reason: _any_in_list(typed, wrong)}


def _without_null_values(lists: pa.ListArray) -> pa.ListArray:
    if not lists.values.null_count:
        return lists
    present = pc.is_valid(lists.values).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(present)])[lists.offsets.to_numpy()].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), lists.values.drop_null(), mask=pc.is_null(lists))


def _offsets_and_values(lists: pa.ListArray) -> tuple[pa.Array, pa.Array]:
    """Offsets from 0 and values without those that null lists or slices hide."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.array(offsets, pa.int32()), lists.flatten()


def _any_in_list(lists: pa.ListArray, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any value of each list is in the mask over all values."""
    counts = np.concatenate([[0], np.cumsum(mask)])
    offsets = lists.offsets.to_numpy()
    found: NDArray[np.bool_] = counts[offsets[1:]] > counts[offsets[:-1]]
    return found
