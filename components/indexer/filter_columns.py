"""The columns of the catalogue that requests may ask for, as the index keeps them: a row an item, in the order of its rows.

Ids are lists, also where there is one or none; a number is null where there is none.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.decoded import decode, lists, single
from components.indexer.embedding import read_serialized
from schemas.features import CANDIDATE_ID, FilterColumn

IDS, NUMBER = pa.list_(pa.binary()), pa.float32()


def read(catalogue: Sequence[str], filters: Mapping[str, FilterColumn], ids: Sequence[bytes]) -> pa.Table:
    """Reads the columns of a catalogue.

    Args:
        catalogue: patterns of gzipped TFRecords of tf.Examples, an item an example.
        filters: the columns, at least one.
        ids: of items of the catalogue; the n-th row is the n-th item's.
    """
    parts = [_columns(batch, filters) for batch in read_serialized(catalogue)]
    rows = pa.concat_tables(parts)
    order = pc.index_in(pa.array(ids, pa.binary()), value_set=rows.column(CANDIDATE_ID).combine_chunks())
    return rows.drop_columns([CANDIDATE_ID]).take(order).combine_chunks()


def sample(ids: Sequence[bytes]) -> NDArray[np.float32]:
    """[items] numbers in [0, 1), of which as good as a share s is at most s, whatever the catalogue: by a digest of the id."""
    digests = np.array([hashlib.blake2b(each, digest_size=8).digest() for each in ids])
    places = np.empty(len(ids), np.int64)
    places[np.argsort(digests, kind="stable")] = np.arange(len(ids))
    return (places / len(ids)).astype(np.float32)


def _columns(serialized: list[bytes], filters: Mapping[str, FilterColumn]) -> pa.Table:
    rows = decode(serialized)
    columns = {CANDIDATE_ID: single(rows.column(CANDIDATE_ID)).cast(pa.binary())}
    for name, filter_column in filters.items():
        values = lists(rows, name)
        columns[name] = _numbers(values) if filter_column.kind == "number" else values.cast(IDS)
    return pa.table(columns)


def _numbers(values: pa.ListArray) -> pa.Array:
    """Lists of one number or none to numbers."""
    offsets = values.offsets.to_numpy()
    flat = values.values if pa.types.is_floating(values.values.type) else pa.array([], NUMBER)
    return flat.take(pa.array(offsets[:-1], mask=offsets[1:] == offsets[:-1])).cast(NUMBER)
