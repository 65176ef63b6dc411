"""PostgreSQL's binary format of COPY, and pgvector's of a vector: two int16, width and 0, and the values."""

import itertools
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.export.store import Items

CHUNK = 1 << 20  # bytes
TEXT_OID = 25
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
COPY_END = struct.pack("!h", -1)
NULL = struct.pack("!i", -1)


def chunks(items: Items) -> Iterator[bytes]:
    """Yield the rows of the items, about `CHUNK` bytes at a time."""
    fields: list[Iterator[bytes]] = [_of_texts(items.ids), _of_vectors(items.embeddings)]
    for column in (items.columns.column(name).combine_chunks() for name in items.columns.column_names):
        fields.append(_of_lists(column) if pa.types.is_list(column.type) else _of_numbers(column))
    head = struct.pack("!h", len(fields))
    waiting, size = [COPY_HEADER], len(COPY_HEADER)
    for row in zip(itertools.repeat(head), *fields, strict=False):
        waiting += row
        size += sum(map(len, row))
        if size > CHUNK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join([*waiting, COPY_END])


def _of_texts(texts: pa.Array) -> Iterator[bytes]:
    for value in texts.cast(pa.binary()).to_pylist():
        yield struct.pack("!i", len(value)) + value


def _of_vectors(vectors: NDArray[np.float32]) -> Iterator[bytes]:
    width = vectors.shape[1]
    head = struct.pack("!ihh", 4 + 4 * width, width, 0)
    for start in range(0, len(vectors), 1024):
        for vector in vectors[start : start + 1024].astype(">f4"):
            yield head + vector.tobytes()


def _of_numbers(numbers: pa.Array) -> Iterator[bytes]:
    for number in numbers.to_pylist():
        yield NULL if number is None else struct.pack("!if", 4, number)


def _of_lists(lists: pa.Array) -> Iterator[bytes]:
    for texts in lists.to_pylist():
        yield _array(texts)


def _array(texts: Sequence[str]) -> bytes:
    """Encode text[]: dimensions, whether there are nulls, the type; for each dimension its size and lower bound; the values."""
    bounds = struct.pack("!ii", len(texts), 1) if texts else b""
    values = b"".join(struct.pack("!i", len(value)) + value for value in (text.encode() for text in texts))
    content = struct.pack("!iii", 1 if texts else 0, 0, TEXT_OID) + bounds + values
    return struct.pack("!i", len(content)) + content
