"""Catalogue and users' table in memory, to join interactions with."""

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from components.decoded import decode, decoder
from components.example_gen.columns import TYPES, Column, joined_columns, user_columns
from components.example_gen.point_in_time import Versions
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT, EARLIER_SPLIT, USERS_SPLIT
from components.records import read_records
from schemas.features import CANDIDATE_ID, QUERY_ID, SEEN_THROUGH, FeatureSpec

FEATURE_TYPES = {pa.binary(): schema_pb2.BYTES, pa.float32(): schema_pb2.FLOAT, pa.int64(): schema_pb2.INT}
FEATURE_TYPES |= {pa.list_(of_one): type_ for of_one, type_ in FEATURE_TYPES.items()}


class CatalogueTable:
    """All known items, including blocked ones, in memory: their ids and features.

    Attributes:
        rows: an Arrow table with `candidate_id` and the joined item features, a row for each item; followed by those of earlier
            catalogues.
        blocked: [items] bool.
    """

    def __init__(self, rows: pa.Table, blocked: NDArray[np.bool_]) -> None:
        self.blocked = blocked
        self.rows, self._ids, self._versions = versioned(rows, CANDIDATE_ID, len(blocked))

    @classmethod
    def load(cls, examples_uri: str, spec: FeatureSpec) -> "CatalogueTable":
        """Read the examples that CatalogueExampleGen wrote.

        Args:
            examples_uri: the URI of the Examples artifact.
            spec: says what interactions are joined with.
        """
        splits = [CATALOGUE_SPLIT, BLOCKED_SPLIT, EARLIER_SPLIT]
        rows, sizes = read_rows(examples_uri, CANDIDATE_ID, splits, joined_columns(spec))
        return cls(rows, np.arange(sizes[0] + sizes[1]) >= sizes[0])

    def positions(self, ids: pa.Array) -> pa.Array:
        """Map [rows] binary ids to [rows] int32 rows of the table; null if the catalogue lacks the item."""
        return pc.index_in(ids, value_set=self._ids)

    def features(self, positions: pa.Array, days: NDArray[np.int64]) -> pa.Table:
        """Return the features of items at [rows] positions, as interactions of [rows] days since 1970-01-01 see them."""
        places = self._versions.places(positions.to_numpy().astype(np.int64), days)
        return self.rows.drop_columns([CANDIDATE_ID]).take(pa.array(places))


class UserTable:
    """All known users, in memory.

    Args:
        examples_uri: the URI of the Examples artifact.
        spec: names the features.
    """

    def __init__(self, examples_uri: str, spec: FeatureSpec) -> None:
        rows, sizes = read_rows(examples_uri, QUERY_ID, [USERS_SPLIT, EARLIER_SPLIT], user_columns(spec))
        self._rows, self._ids, self._versions = versioned(rows, QUERY_ID, sizes[0])

    def positions(self, users: pa.Array) -> pa.Array:
        """Map [rows] binary ids to [rows] int32 rows of the table; null for an unknown user."""
        return pc.index_in(users, value_set=self._ids)

    def features(self, positions: pa.Array, days: NDArray[np.int64]) -> pa.Table:
        """Return the features of users at [rows] positions, as interactions of [rows] days see them; null for unknown users."""
        is_missing = positions.is_null().to_numpy(zero_copy_only=False)
        places = self._versions.places(positions.fill_null(0).to_numpy().astype(np.int64), days)
        return self._rows.drop_columns([QUERY_ID]).take(pa.array(places, mask=is_missing))


def versioned(rows: pa.Table, key: str, newest: int) -> tuple[pa.Table, pa.Array, Versions]:
    """Prepare rows of the newest table, followed by earlier ones, for lookups.

    Args:
        rows: with `SEEN_THROUGH` if there are earlier ones.
        key: the column of the id.
        newest: the number of rows of the newest table.

    Returns:
        The rows without `SEEN_THROUGH`; the newest table's ids; and the lookup of the row that an interaction sees.
    """
    ids = rows.column(key).combine_chunks()
    if SEEN_THROUGH not in rows.column_names:
        return rows, ids, Versions(newest, np.zeros(0, np.int64), np.zeros(0, np.int64))
    through = pc.list_flatten(rows.column(SEEN_THROUGH).combine_chunks()).to_numpy()
    items = pc.index_in(ids.slice(newest), value_set=ids.slice(0, newest)).to_numpy().astype(np.int64)
    return rows.drop_columns([SEEN_THROUGH]), ids.slice(0, newest), Versions(newest, items, through)


def read_rows(
    examples_uri: str, key: str, splits: Sequence[str], columns: Sequence[Column] | None = None
) -> tuple[pa.Table, list[int]]:
    """Read examples as a table, with one value of the key in each row and a list for each other feature.

    Args:
        examples_uri: the URI of the Examples artifact.
        key: the feature of the id.
        splits: the splits to read; a missing one has no rows.
        columns: the features to decode besides the key and `SEEN_THROUGH`; None for all, of whatever type they are.

    Returns:
        The rows, and the number of rows of each split.
    """
    by_split = [_read(os.path.join(examples_uri, f"Split-{split}")) for split in splits]
    serialized = [example for of_split in by_split for example in of_split]
    if columns is None:
        batch = decode(serialized)
    else:
        types = {column.name: FEATURE_TYPES[TYPES[column.kind]] for column in columns}
        batch = decoder({key: schema_pb2.BYTES, SEEN_THROUGH: schema_pb2.INT} | types).DecodeBatch(serialized)
    # A feature without values in all entries is left out; interactions then come without it too.
    batch = batch.select(
        [name for name, values in zip(batch.schema.names, batch, strict=True) if values.null_count < len(values)]
    )
    value_types = {pa.large_binary(): pa.binary(), pa.float32(): pa.float32(), pa.int64(): pa.int64()}
    lists = [pa.list_(value_types[field.type.value_type]) for field in batch.schema]
    rows = pa.Table.from_batches([batch]).cast(pa.schema(list(zip(batch.schema.names, lists, strict=True))))
    ids = pa.array(rows.column(key).combine_chunks().flatten()).cast(pa.binary())
    return rows.set_column(rows.column_names.index(key), key, ids), [len(of_split) for of_split in by_split]


def _read(folder: str) -> list[bytes]:
    return list(read_records(sorted(tf.io.gfile.glob(io_utils.all_files_pattern(folder)))))
