"""Rows of different lengths: flat values, and where each row begins."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray


def offsets(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return [rows + 1] where each row begins, given [rows] lengths; the last is the number of values."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def lengths(lists: pa.Array) -> NDArray[np.int64]:
    """Return [rows] the number of values of each list; a missing list has none."""
    return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def rows(offsets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return [values] the row of each value."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def from_lengths(lengths: ArrayLike, values: pa.Array, mask: pa.Array | None = None) -> pa.ListArray:
    """Cut values into lists of [rows] lengths; those in the mask are missing."""
    return pa.ListArray.from_arrays(pa.array(offsets(lengths), pa.int32()), values, mask=mask)


def of_width(values: pa.Array, width: int) -> pa.ListArray:
    """Cut values into lists of one length, at least 1."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, width), pa.int32()), values)
