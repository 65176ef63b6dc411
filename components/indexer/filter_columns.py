"""Reads the catalogue's filter columns for the index: a row for each item, in the order of its rows.

Ids are lists, even of one or none; a missing number is null.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.decoded import decode, lists, single
from components.digests import digest, partition_of
from components.indexer.embedding import read_serialized
from components.indexer.shards import WHOLE, Shard
from schemas.features import CANDIDATE_ID, FilterColumn

IDS, NUMBER = pa.list_(pa.binary()), pa.float32()


def read(
    catalogue: Sequence[str], filters: Mapping[str, FilterColumn], ids: Sequence[bytes], shard: Shard = WHOLE
) -> pa.Table:
    """Read the columns of the items of a shard.

    Args:
        catalogue: patterns of gzipped TFRecords of tf.Examples, one for each item.
        filters: the columns, at least one.
        ids: ids of the shard's items; the n-th row is the n-th item's.
        shard: the shard; by default the whole catalogue.
    """
    tables = [_of_shard(_columns(batch, filters), shard) for batch in read_serialized(catalogue)]
    rows = pa.concat_tables(tables)
    order = pc.index_in(pa.array(ids, pa.binary()), value_set=rows.column(CANDIDATE_ID).combine_chunks())
    return rows.drop_columns([CANDIDATE_ID]).take(order).combine_chunks()


def sample(ids: Sequence[bytes], shards: int = 1) -> NDArray[np.float32]:
    """Return [items] numbers in [0, 1) such that for any share s, almost exactly that share is at most s; by a digest of the id.

    Args:
        ids: of the items.
        shards: the number of retrievers that the items are divided among; in each shard, that share is at most s.
    """
    if shards > 1:
        item_shards, numbers = np.array([partition_of(item, shards) for item in ids]), np.zeros(len(ids), np.float32)
        for shard in range(shards):
            rows = np.flatnonzero(item_shards == shard)
            numbers[rows] = sample([ids[row] for row in rows.tolist()])
        return numbers
    digests = np.array([digest(item, 8) for item in ids])
    places = np.empty(len(ids), np.int64)
    places[np.argsort(digests, kind="stable")] = np.arange(len(ids))
    return (places / len(ids)).astype(np.float32)


def _of_shard(rows: pa.Table, shard: Shard) -> pa.Table:
    if shard == WHOLE:
        return rows
    return rows.filter(pa.array([shard.has(item) for item in rows.column(CANDIDATE_ID).to_pylist()], pa.bool_()))


def _columns(serialized: list[bytes], filters: Mapping[str, FilterColumn]) -> pa.Table:
    rows = decode(serialized)
    columns = {CANDIDATE_ID: single(rows.column(CANDIDATE_ID)).cast(pa.binary())}
    for name, filter_column in filters.items():
        values = lists(rows, name)
        columns[name] = _numbers(values) if filter_column.kind == "number" else values.cast(IDS)
    return pa.table(columns)


def _numbers(values: pa.ListArray) -> pa.Array:
    """Flatten lists of one number or none; null for none."""
    offsets = values.offsets.to_numpy()
    flat = values.values if pa.types.is_floating(values.values.type) else pa.array([], NUMBER)
    return flat.take(pa.array(offsets[:-1], mask=offsets[1:] == offsets[:-1])).cast(NUMBER)
