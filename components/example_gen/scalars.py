"""Converts raw values, one for each row, to typed ones: ids, texts, numbers, times. Faults are masks of rows, by reason."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen.columns import is_text

MICROSECONDS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
LONGEST_WHOLE = r"^-?\d{1,19}$"  # may fit int64
EXACT = 2.0**53  # whole floats below it are exact
NULL_SPELLINGS = ("\\N", "NULL", "null", "(null)", "None", "NaN", "nan", "<NA>", "#N/A", "NaT")
SPELLING = "a usual spelling of a missing value"
TRUTHS = {"true": "1", "True": "1", "TRUE": "1", "t": "1", "false": "0", "False": "0", "FALSE": "0", "f": "0"}


@dataclass(frozen=True)
class Form:
    """How values are written, in any column.

    Attributes:
        max_id_bytes: a longer id is a fault.
        null_values: texts that stand for a missing value; None if not declared.
        trim: whether blanks around ids are removed.
    """

    max_id_bytes: int
    null_values: tuple[str, ...] | None = None
    trim: bool = False


def without_nothing(raw: pa.Array, form: Form) -> pa.Array:
    """Replace empty texts and declared spellings of missing values by null."""
    if not is_text(raw.type):
        return raw
    nothing = pc.equal(pc.binary_length(raw), 0)
    if form.null_values:
        words = pa.array([word.encode() for word in form.null_values]).cast(raw.type)
        nothing = pc.or_(nothing, pc.is_in(raw, words))
    # Not `if_else`, which gives invalid offsets for a slice of texts (pyarrow 18).
    return pc.replace_with_mask(raw, pc.fill_null(nothing, False), pa.scalar(None, raw.type))


def ids(raw: pa.Array, form: Form) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert to ids, binary."""
    if pa.types.is_integer(raw.type):
        return raw.cast(pa.string()).cast(pa.binary()), {}
    if pa.types.is_floating(raw.type) or pa.types.is_decimal(raw.type):
        return _whole_ids(raw)
    values, wrong = texts(raw)
    faults = {"not UTF-8": wrong}
    trimmed = pc.utf8_trim_whitespace(values.cast(pa.string())).cast(pa.binary())
    if form.trim:
        values = without_nothing(trimmed, form)
    else:
        faults["blanks around it"] = mask(pc.not_equal(pc.binary_length(trimmed), pc.binary_length(values)))
    if form.null_values is None:
        faults[SPELLING] = mask(pc.is_in(values, pa.array([word.encode() for word in NULL_SPELLINGS])))
    faults[f"longer than {form.max_id_bytes} bytes"] = mask(pc.greater(pc.binary_length(values), form.max_id_bytes))
    return values, faults


def _whole_ids(raw: pa.Array) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert floats or decimals to ids, as pandas and databases write whole numbers: 13.0 is 13, NaN is missing."""
    if pa.types.is_decimal(raw.type):
        whole = pc.equal(pc.floor(raw), raw)
        texts = pc.replace_substring_regex(raw.cast(pa.string()), r"\.0*$", "")
    else:
        raw = raw.cast(pa.float64())
        raw = pc.if_else(pc.is_nan(raw), pa.scalar(None, pa.float64()), raw)
        whole = pc.and_(pc.equal(pc.floor(raw), raw), pc.less(pc.abs(raw), EXACT))
        texts = pc.if_else(whole, raw, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    wrong = mask(pc.invert(whole))
    return pc.if_else(pa.array(wrong), pa.scalar(None, pa.binary()), texts.cast(pa.binary())), {
        "not a whole number": wrong
    }


def texts(raw: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Convert to binary, with the mask of invalid UTF-8."""
    if not is_text(raw.type):
        return raw.cast(pa.string()).cast(pa.binary()), none(raw)
    return _each(
        raw.cast(pa.binary()), lambda values: values.cast(pa.string()).cast(pa.binary()), _checked_utf8, pa.binary()
    )


def titles(raw: pa.Array, max_bytes: int) -> pa.Array:
    """Convert text that is only displayed, which never costs its row: it is truncated, and invalid UTF-8 is replaced."""
    if pa.types.is_floating(raw.type):  # a whole one without an exponent: 1795046400000, not 1.7950464e+12
        raw = raw.cast(pa.float64())
        is_whole = pc.and_(pc.equal(pc.floor(raw), raw), pc.less(pc.abs(raw), EXACT))
        whole = pc.if_else(is_whole, raw, pa.scalar(None, pa.float64())).cast(pa.int64())
        return pc.coalesce(whole.cast(pa.string()), raw.cast(pa.string())).cast(pa.binary())
    if not is_text(raw.type):
        return pc.replace_substring_regex(raw.cast(pa.string()), r"\.0*$", "").cast(pa.binary())  # of decimals
    raw = raw.cast(pa.binary())
    try:
        raw.cast(pa.string())
        if not pc.any(pc.greater(pc.binary_length(raw), max_bytes)).as_py():
            return raw
    except pa.ArrowInvalid:
        pass
    shown = [
        None
        if title is None
        else title.decode("utf-8", "replace").encode()[:max_bytes].decode("utf-8", "ignore").encode()
        for title in raw.to_pylist()
    ]
    return pa.array(shown, pa.binary())


def numbers(raw: pa.Array, largest: float) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert to float32; infinity, and a number of `largest` or more, is a fault."""
    if is_text(raw.type):
        values, wrong = _each(raw.cast(pa.binary()), _fast_numbers, _float, pa.float32())
    else:
        values, wrong = raw.cast(pa.float32(), safe=False), none(raw)  # rounded beyond 2^24
    # NaN is how pandas writes a missing number; infinity is a fault.
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float32()), values)
    wrong = wrong | mask(pc.is_inf(values))
    return values, {
        "not a number": wrong,
        f"beyond {largest:.3g}": ~wrong & mask(pc.greater_equal(pc.abs(values), pa.scalar(largest, pa.float32()))),
    }


def _fast_numbers(raw: pa.Array) -> pa.Array:
    texts = raw.cast(pa.string())
    try:
        return texts.cast(pa.float32())
    except pa.ArrowInvalid:
        truths = pc.index_in(texts, value_set=pa.array(list(TRUTHS)))
        return pc.coalesce(pa.array(list(TRUTHS.values())).take(truths), texts).cast(pa.float32())


def times(raw: pa.Array, unit: str) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Convert to int64 microseconds since 1970-01-01 UTC."""
    if pa.types.is_timestamp(raw.type):
        zone = raw.type.tz
        return raw.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()), none(raw)
    if unit == "iso":
        return _each(raw.cast(pa.binary()), _fast_iso, iso_microseconds, pa.int64())
    factor = MICROSECONDS[unit]

    def scaled(values: pa.Array) -> pa.Array:
        whole = (values.cast(pa.string()) if is_text(values.type) else values).cast(pa.int64())
        return pc.multiply_checked(whole, int(factor)) if factor >= 1.0 else pc.divide(whole, int(1.0 / factor))

    return _each(raw, scaled, lambda value: _microseconds(value, factor), pa.int64())


def _fast_iso(raw: pa.Array) -> pa.Array:
    texts, zoned = raw.cast(pa.string()), pa.timestamp("us", "UTC")
    try:
        return texts.cast(zoned).cast(pa.int64())
    except pa.ArrowInvalid:  # in BigQuery's format, or without a zone
        texts = pc.replace_substring_regex(texts, r"( UTC)?$", "Z")
        return texts.cast(zoned).cast(pa.int64())


def iso_microseconds(value: bytes) -> int:
    """Parse ISO 8601, with optional blanks around it or UTC after it, to microseconds since 1970-01-01 UTC.

    Raises:
        ValueError: it is something else.
    """
    moment = datetime.fromisoformat(re.sub(" UTC$", "Z", value.decode("utf-8").strip().upper()))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * MICROSECONDS["s"])


def _microseconds(value: Any, factor: float) -> int:
    """Convert one value; a whole number gives the same as in the conversion of all at once."""
    try:
        whole = int(value) if not isinstance(value, float) and b"_" not in str(value).encode() else None
    except ValueError:  # a fraction, or not a number
        whole = None
    if whole is None:
        return _whole(_float(value) * factor)
    scaled = whole * int(factor) if factor >= 1.0 else abs(whole) // int(1.0 / factor) * (1 if whole >= 0 else -1)
    return _int64(scaled)


def compared(raw: pa.Array) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert numbers for comparisons, keeping whole ones exact: a time in nanoseconds exceeds a float's precision.

    Returns:
        Structs of `whole` (int64) or `real` (float64), both null if missing.
    """
    wrong, kind = none(raw), raw.type
    if is_text(kind):
        words, wrong = texts(raw)
        words = words.cast(pa.string())
        digits = pc.if_else(pc.match_substring_regex(words, LONGEST_WHOLE), words, pa.scalar(None, pa.string()))
        whole, _ = _each(digits, lambda values: values.cast(pa.int64()), _int64, pa.int64())
        others = pc.if_else(pc.is_valid(whole), pa.scalar(None, pa.binary()), words.cast(pa.binary()))
        real, wrong_too = _each(
            others, lambda values: values.cast(pa.string()).cast(pa.float64()), _float, pa.float64()
        )
        wrong = wrong | wrong_too
    elif pa.types.is_floating(kind):
        whole, real = pa.nulls(len(raw), pa.int64()), raw.cast(pa.float64())
    elif pa.types.is_decimal(kind):
        is_whole = pc.and_(pc.equal(pc.floor(raw), raw), pc.less(pc.abs(raw.cast(pa.float64())), EXACT * 512))
        whole = pc.if_else(is_whole, raw, pa.scalar(None, kind)).cast(pa.int64())
        real = pc.if_else(is_whole, pa.scalar(None, kind), raw).cast(pa.float64())
    else:  # booleans and whole numbers, of which unsigned ones may exceed int64
        whole, _ = _each(raw, lambda values: values.cast(pa.int64()), _int64, pa.int64())
        real = pc.if_else(pc.is_valid(whole), pa.scalar(None, kind), raw).cast(pa.float64(), safe=False)
    real = pc.if_else(pc.is_nan(real), pa.scalar(None, pa.float64()), real)
    is_infinite = mask(pc.is_inf(real))
    real = pc.if_else(pa.array(is_infinite), pa.scalar(None, pa.float64()), real)
    return pa.StructArray.from_arrays([whole, real], ["whole", "real"]), {"not a number": wrong | is_infinite}


def _checked_utf8(value: bytes) -> bytes:
    value.decode("utf-8")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bytes) and value.decode("utf-8", "replace") in TRUTHS:
        return float(TRUTHS[value.decode()])
    if isinstance(value, bytes) and b"_" in value:  # which Python allows
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _int64(value: Any) -> int:
    whole = int(value)
    if abs(whole) >= 2**63:
        raise ValueError(f"{value!r} is more than int64 holds")
    return whole


def _whole(value: float) -> int:
    if not math.isfinite(value) or abs(value) >= 2**63:
        raise ValueError(f"{value} is no time")
    return round(value)


def _each(
    raw: pa.Array, fast: Callable[[pa.Array], pa.Array], slow: Callable[[Any], Any], kind: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Convert all values at once or, if one is faulty, one by one to find which.

    Returns:
        The values, null if faulty, and the mask of faulty ones.
    """
    try:
        return fast(raw), none(raw)
    except pa.ArrowInvalid:
        values: list[Any] = []
        wrong = none(raw)
        for position, value in enumerate(raw.to_pylist()):
            try:
                values.append(None if value is None else slow(value))
            except (ValueError, OverflowError):
                values.append(None)
                wrong[position] = True
        return pa.array(values, kind), wrong


def mask(values: pa.Array) -> NDArray[np.bool_]:
    """Convert booleans to NumPy; null is False."""
    mask: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask


def none(values: pa.Array) -> NDArray[np.bool_]:
    """Return the mask of no value."""
    return np.zeros(len(values), bool)
