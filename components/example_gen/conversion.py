"""Converts raw columns to typed ones; a value that cannot be converted is a fault of its row, not of the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged
from components.example_gen import scalars
from components.example_gen.columns import Column, is_list, is_text

FLOAT32_MAX = float(np.finfo(np.float32).max)
BRACKETS = "[](){} \t"  # around a vector that is written as text


@dataclass(frozen=True)
class Converted:
    """A typed column.

    Attributes:
        values: of the type in TYPES; null if missing or faulty.
        faults: the mask of faulty rows for each reason.
    """

    values: pa.Array
    faults: dict[str, NDArray[np.bool_]]


def convert(column: Column, raw: pa.Array, form: scalars.Form) -> Converted:
    """Convert a raw column to a typed one. Lists may still hold nulls, so that weights stay beside their ids: see `aligned`.

    Args:
        column: the wanted column.
        raw: [rows], binary from CSV, else of a type without `type_faults`.
        form: how values are written.
    """
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if pa.types.is_null(raw.type):  # Parquet's type of a column without values
        raw = raw.cast(pa.binary())
    raw = scalars.without_nothing(raw, form)
    match column.kind:
        case "id":
            values, faults = scalars.ids(raw, form)
        case "ids":
            values, faults = _several(raw, column.separator, form, lambda flat: scalars.ids(flat, form))
        case "number":
            values, faults = scalars.numbers(raw, column.largest)
            if column.minimum is not None:
                faults[f"below {column.minimum:g}"] = scalars.mask(
                    pc.less(values, pa.scalar(column.minimum, pa.float32()))
                )
        case "numbers":
            values, faults = _several(raw, column.separator, form, lambda flat: scalars.numbers(flat, column.largest))
        case "text":
            values, wrong = scalars.texts(raw)
            faults = {"not UTF-8": wrong}
        case "vector":
            values, faults = _vectors(raw, column, form)
        case "time":
            values, wrong = scalars.times(raw, column.time_unit)
            faults = {f"not a time{column.unit}": wrong}
        case "compared":
            values, faults = scalars.compared(raw)
        case "title":
            values, faults = scalars.titles(raw, form.max_id_bytes), {}
    if column.required:
        faulty = np.logical_or.reduce(list(faults.values()))
        faults["missing"] = pc.is_null(values).to_numpy(zero_copy_only=False) & ~faulty
    return Converted(values, faults)


def aligned(ids: pa.ListArray, weights: pa.ListArray) -> tuple[pa.ListArray, pa.ListArray, NDArray[np.bool_]]:
    """Drop missing ids from lists of ids and their lists of weights.

    Returns:
        Both, of equal lengths without faults; and the mask of rows that have a different number of weights than ids,
        or an id without a weight.
    """
    wrong = ragged.lengths(ids) != ragged.lengths(weights)
    if wrong.any():
        ids, weights = (
            _rebuilt(pc.if_else(pa.array(wrong), pa.scalar(None, side.type), side)) for side in (ids, weights)
        )
    is_present = pc.is_valid(ids.values).to_numpy(zero_copy_only=False)
    lacking = is_present & pc.is_null(weights.values).to_numpy(zero_copy_only=False)
    wrong = wrong | _any_in_list(ids, lacking)
    return _chosen(ids, is_present), _chosen(weights, is_present), wrong


def without_nulls(lists: pa.ListArray) -> pa.ListArray:
    """Drop missing values from lists."""
    if not lists.values.null_count:
        return lists
    return _chosen(lists, pc.is_valid(lists.values).to_numpy(zero_copy_only=False))


def _chosen(lists: pa.ListArray, mask: NDArray[np.bool_]) -> pa.ListArray:
    offsets = ragged.offsets(mask)[lists.offsets.to_numpy()].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), lists.values.filter(pa.array(mask)), mask=pc.is_null(lists))


def _several(
    raw: pa.Array,
    separator: str,
    form: scalars.Form,
    convert_values: Callable[[pa.Array], tuple[pa.Array, dict[str, NDArray[np.bool_]]]],
) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert lists, texts of several values, or single values to a list column."""
    if is_list(raw.type):
        lists = raw.cast(pa.list_(raw.type.value_type))
    elif is_text(raw.type):
        lists = pc.split_pattern(raw.cast(pa.binary()), separator.encode())
    else:
        single = ragged.of_width(raw, 1)
        lists = pc.if_else(pc.is_null(raw), pa.scalar(None, single.type), single)
    lists = _rebuilt(lists)
    values, faults = convert_values(scalars.without_nothing(lists.values, form))
    typed = pa.ListArray.from_arrays(lists.offsets, values, mask=pc.is_null(lists))
    return typed, {reason: _any_in_list(typed, wrong) for reason, wrong in faults.items()}


def _vectors(raw: pa.Array, column: Column, form: scalars.Form) -> tuple[pa.Array, dict[str, NDArray[np.bool_]]]:
    """Convert to lists with the column's number of values, whose sum of squares is finite; an empty one is a missing value."""
    wrong = scalars.none(raw)
    if is_text(raw.type):
        texts, wrong = scalars.texts(raw)
        texts = pc.ascii_trim(texts.cast(pa.string()), BRACKETS)
        # Any run of blanks is one separator, as NumPy prints aligned columns.
        is_blank = column.separator == " "
        raw = pc.ascii_split_whitespace(texts) if is_blank else pc.split_pattern(texts, column.separator)
        raw = pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, raw.type), raw)
    largest = math.sqrt(FLOAT32_MAX / column.size)
    values, faults = _several(raw, column.separator, form, lambda flat: scalars.numbers(flat, largest))
    faults["not UTF-8"] = wrong
    faulty = np.logical_or.reduce(list(faults.values()))
    lacking = _any_in_list(values, pc.is_null(values.values).to_numpy(zero_copy_only=False)) & ~faulty
    lengths = np.diff(values.offsets.to_numpy())
    faults["a number is missing"] = lacking
    faults[f"another length than {column.size}"] = (lengths != column.size) & (lengths > 0) & ~lacking & ~faulty
    return pa.ListArray.from_arrays(values.offsets, values.values, mask=pa.array(lengths == 0)), faults


def _rebuilt(lists: pa.ListArray) -> pa.ListArray:
    """Return the same lists with offsets from 0, and without values that null lists or slices hide."""
    return ragged.from_lengths(ragged.lengths(lists), lists.flatten(), mask=pc.is_null(lists))


def _any_in_list(lists: pa.ListArray, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether any value of each list is in the mask over all values."""
    counts = ragged.offsets(mask)
    offsets = lists.offsets.to_numpy()
    has_any: NDArray[np.bool_] = counts[offsets[1:]] > counts[offsets[:-1]]
    return has_any
