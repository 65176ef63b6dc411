"""Selects the interactions to rank, and reads them in whole batches of a file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2

from components.decoded import decoder, single
from components.digests import is_drawn, partition_of
from components.evaluator.ranked import USER_GROUPS
from components.indexer.embedding import matching_paths, read_serialized
from schemas.features import QUERY_ID, REWARD, TIMESTAMP

TYPES = {QUERY_ID: schema_pb2.BYTES, TIMESTAMP: schema_pb2.INT, REWARD: schema_pb2.FLOAT}


@dataclass(frozen=True)
class Window:
    """Selects interactions: those with a reward above 0, not before `start`, of a share of the users.

    Attributes:
        span: the day, in days since 1970-01-01; it seeds the draw of users.
        start: microseconds since 1970-01-01.
        share: the share of users, drawn by a digest of the id and the day.
    """

    span: int
    start: int = 0
    share: float = 1.0

    def has(self, user: bytes) -> bool:
        """Return whether the user is drawn."""
        return is_drawn(user, self.span, self.share)


class Batch(NamedTuple):
    """Some interactions of a file.

    Attributes:
        serialized: [rows] binary, their tf.Examples.
        rows: some of their features, as lists.
    """

    serialized: pa.Array
    rows: pa.RecordBatch


def read_interactions(path: str, window: Window, features: Sequence[str]) -> Iterator[Batch]:
    """Read the interactions of a file that are to be ranked.

    Args:
        path: a gzipped TFRecord of tf.Examples.
        window: selects the interactions.
        features: declared features to decode, besides user, time and reward.
    """
    some = decoder(dict.fromkeys(features, schema_pb2.BYTES) | TYPES)
    for serialized in read_serialized([path]):
        rows = some.DecodeBatch(serialized)
        is_kept = pc.and_(
            pc.greater(single(rows.column(REWARD)), 0.0),
            pc.greater_equal(single(rows.column(TIMESTAMP)), window.start),
        ).to_numpy(zero_copy_only=False)
        if window.share < 1.0:
            is_kept &= _of_users(rows, window.has).astype(bool)
        positions = pa.array(np.flatnonzero(is_kept))
        yield Batch(pa.array(serialized, pa.binary()).take(positions), rows.take(positions))


class ReadByGroup(beam.PTransform):
    """Reads the interactions of each group of users: (group, arrays of serialised tf.Examples).

    Args:
        interactions: patterns of gzipped TFRecords of tf.Examples.
        window: selects the interactions.
    """

    def __init__(self, interactions: Sequence[str], window: Window) -> None:
        super().__init__()
        self._interactions = interactions
        self._window = window

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        return (
            pipeline
            | "Files" >> beam.Create(matching_paths(self._interactions))
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_by_group, self._window)
            | "BringTogether" >> beam.GroupByKey()
        )


def _read_by_group(path: str, window: Window) -> Iterator[tuple[int, list[bytes]]]:
    for batch in read_interactions(path, window, []):
        groups = _of_users(batch.rows, lambda user: partition_of(user, USER_GROUPS))
        for group in np.unique(groups).tolist():
            yield group, batch.serialized.filter(pa.array(groups == group)).to_pylist()


def _of_users(rows: pa.RecordBatch, of_user: Callable[[bytes], int]) -> NDArray[np.int64]:
    """Apply a function to each row's user, once for each distinct user: [rows]."""
    users = single(rows.column(QUERY_ID)).dictionary_encode()
    numbers = np.array([of_user(user) for user in users.dictionary.to_pylist()], np.int64)
    return numbers[users.indices.to_numpy()]
