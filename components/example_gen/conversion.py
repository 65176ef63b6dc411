"""Raw columns to typed ones; a value that cannot be one is a fault of its row, not of the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen.columns import Column, is_list, is_text

MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class Converted:
    """A typed column.

    Attributes:
        values: of the type that TYPES gives; null where nothing came or what came is at fault.
        faults: the mask of rows at fault for each reason.
    """

    values: pa.Array
    faults: dict[str, NDArray[np.bool_]]


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
            faults = {f"not a time{column.unit}": wrong}
    if column.required:
        faulty = np.logical_or.reduce(list(faults.values()))
        faults["missing"] = pc.is_null(values).to_numpy(zero_copy_only=False) & ~faulty
    return Converted(values, faults)


def _none(values: pa.Array) -> NDArray[np.bool_]:
    return np.zeros(len(values), bool)


def _without_blanks(raw: pa.Array) -> pa.Array:
    """An empty text is a missing value."""
    if not is_text(raw.type):
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
    if is_text(raw.type):
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
        whole = (values.cast(pa.string()) if is_text(values.type) else values).cast(pa.int64())
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
    if is_list(raw.type):
        lists = raw.cast(pa.list_(raw.type.value_type))
    elif is_text(raw.type):
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
