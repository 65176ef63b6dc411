"""Serialises Arrow rows as tf.Examples, column by column and always to the same bytes.

The encoders of TensorFlow and tfx_bsl write an example's features in a different order in each process. Here each feature has
protobuf's bytes, and they are in the order of their names. Protobuf's own deterministic order depends on its release.
"""

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged

BYTES, FLOATS, INTS = b"\x0a", b"\x12", b"\x1a"  # the fields of a Feature
FIELD_1, FIELD_2 = b"\x0a", b"\x12"
MISSING = -1  # instead of a length
TABULATED = 1 << 20  # numbers from -1 to below this are looked up in a table
VARINT_BITS = 7


def encode(rows: pa.RecordBatch) -> pa.Array:
    """Serialise rows as tf.Examples.

    Args:
        rows: features as lists of bytes, texts, float32 or int64, or single values; a missing value or list gives a feature without
            a kind. At most 2 GB of them.

    Returns:
        [rows] binary.
    """
    pieces = [piece for name in sorted(rows.schema.names) for piece in _feature(name, rows.column(name))]
    lengths = np.zeros(rows.num_rows, np.int64)
    for piece in pieces:
        lengths += pc.binary_length(piece).to_numpy()
    return _join(_by_length(lengths, lambda length: FIELD_1 + _varint(length)), *pieces)


def _feature(name: str, column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return [rows] the bytes before a feature's values, and the values."""
    values, offsets = _values_and_offsets(column)
    if pa.types.is_floating(values.type):
        kind, content = FLOATS, _slices(values.to_numpy().astype("<f4", copy=False), offsets * 4)
    elif pa.types.is_integer(values.type):
        numbers = _varints(values.to_numpy())
        kind, content = INTS, _slices(_data(numbers), _offsets(numbers)[offsets])
    else:
        values = values.cast(pa.binary())
        prefixes = _by_length(pc.binary_length(values).to_numpy(), lambda length: FIELD_1 + _varint(length))
        tagged = _join(prefixes, values)
        kind, content = BYTES, _slices(_data(tagged), _offsets(tagged)[offsets])
    lengths = pc.binary_length(content).to_numpy().astype(np.int64)
    lengths[column.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return _by_length(lengths, lambda length: _before_values(name.encode(), kind, length)), content


def _before_values(name: bytes, kind: bytes, length: int) -> bytes:
    """Encode an entry of the map of features, up to its values' bytes."""
    listed = b"" if kind == BYTES or length <= 0 else FIELD_1 + _varint(length)  # numbers are packed
    feature = b"" if length == MISSING else kind + _varint(len(listed) + length) + listed
    feature_length = len(feature) + max(length, 0)
    entry = FIELD_1 + _varint(len(name)) + name + FIELD_2 + _varint(feature_length) + feature
    return FIELD_1 + _varint(len(entry) + max(length, 0)) + entry


def _values_and_offsets(column: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the concatenated values of all rows, and [rows + 1] where each row begins."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column.flatten(), ragged.offsets(ragged.lengths(column))
    return column.drop_null(), ragged.offsets(column.is_valid().to_numpy(zero_copy_only=False))


def _by_length(lengths: NDArray[np.int64], make: Callable[[int], bytes]) -> pa.Array:
    """Return [rows] binary, the result of a function for each length."""
    different = pa.array(lengths).dictionary_encode()
    values = pa.array([make(length) for length in different.dictionary.to_pylist()], pa.binary())
    return values.take(different.indices)


def _join(*pieces: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*pieces, b"")


def _slices(data: NDArray[np.generic], offsets: NDArray[np.integer]) -> pa.Array:
    """Return [rows] binary of consecutive bytes, given [rows + 1] where each begins."""
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _offsets(values: pa.Array) -> NDArray[np.int32]:
    """Return [values + 1] where each value begins."""
    return np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]


def _data(values: pa.Array) -> NDArray[np.uint8]:
    data = values.buffers()[2]
    return np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)


def _varint(number: int) -> bytes:
    """Encode a length for protobuf."""
    groups = []
    while number >= 1 << VARINT_BITS:
        groups.append(number & 0x7F | 0x80)
        number >>= VARINT_BITS
    return bytes([*groups, number])


def _varints(numbers: NDArray[np.int64]) -> pa.Array:
    """Encode [numbers] int64 for protobuf."""
    if len(numbers) and numbers.min() >= -1 and numbers.max() < TABULATED:  # rows of embedding tables, which recur
        return _tabulated(int(numbers.max()).bit_length()).take(pa.array(numbers + 1))
    return _varints_of(numbers)


@functools.cache
def _tabulated(bits: int) -> pa.Array:
    return _varints_of(np.arange(-1, 1 << bits))


def _varints_of(numbers: NDArray[np.int64]) -> pa.Array:
    bits = numbers.astype(np.int64, copy=False).view(np.uint64)
    sizes = np.ones(len(bits), np.int64)
    for size in range(1, 10):
        sizes += bits >= np.uint64(1 << VARINT_BITS * size)
    offsets = ragged.offsets(sizes)
    data = np.empty(offsets[-1], np.uint8)
    for place in range(sizes.max(initial=0)):
        chosen = np.flatnonzero(sizes > place)
        groups = bits[chosen] >> np.uint64(VARINT_BITS * place)
        is_last = sizes[chosen] == place + 1
        data[offsets[chosen] + place] = (groups & np.uint64(0x7F)) | np.where(is_last, 0, 0x80).astype(np.uint64)
    return _slices(data, offsets)
