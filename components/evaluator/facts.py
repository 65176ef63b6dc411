"""What the training interactions say of items and users, as files that every worker of the next stage reads.

    items-BLOCK.parquet   `row` (in the catalogue), `count` of interactions, and `first`: the time of the earliest
    pairs-BLOCK.parquet   `source`, `target` (rows), `count`: how often the target was chosen with the source in the history, and
                          `total`, that of all the source's targets; the most frequent targets of each source
    users-PART.parquet    `user`, `first`, and `history`: the length of the history at that time
    values-0.parquet      `feature`, `value`: the most frequent values of the declared slices, of the held-out interactions

Only interactions with a reward above 0 count: they are what retrieval should lead to.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.utils import io_utils
from tfx_bsl.coders import example_coder

from components.indexer import files as item_files
from components.kept import Kept
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP

ITEMS, PAIRS, USERS, VALUES = "items", "pairs", "users", "values"
BLOCK_ITEMS = 1 << 16
BATCH = 8192

Key = tuple[str, int]


class GatherFacts(beam.PTransform):
    """(serialised training interactions, serialised held-out interactions) to files of facts.

    Args:
        item_folder: of the catalogue's embeddings, whose order of ids makes the rows.
        history: the feature that holds the query's history; None where there is none.
        parts: of users; see `user_part`.
        most_neighbours: targets that are kept for each source.
        most_values: by declared feature, how many values have a slice of their own.
        destination: the folder to write to.
    """

    def __init__(
        self,
        item_folder: str,
        history: str | None,
        parts: int,
        most_neighbours: int,
        most_values: Mapping[str, int],
        destination: str,
    ) -> None:
        super().__init__()
        self._take = TakeFacts(item_folder, history, parts)
        self._take_values = TakeValues(list(most_values))
        self._write = WriteFacts(most_neighbours, most_values, destination)

    def expand(self, interactions: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Called by Beam."""
        training, held_out = interactions
        of_training = training | "BatchTraining" >> _batches() | "Take" >> beam.ParDo(self._take)
        of_held_out = held_out | "BatchHeldOut" >> _batches() | "TakeValues" >> beam.ParDo(self._take_values)
        return (
            (of_training, of_held_out)
            | beam.Flatten()
            | "BringTogether" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(self._write)
        )


class TakeFacts(beam.DoFn):
    """Batches of serialised training interactions to what they say, by kind and part."""

    def __init__(self, item_folder: str, history: str | None, parts: int) -> None:
        self._history = history
        self._parts = parts
        self._ids = Kept(lambda: pa.array(item_files.read(item_folder).ids, pa.binary()))

    def process(self, batch: Sequence[bytes]) -> Iterator[tuple[Key, pd.DataFrame]]:
        """Called by Beam."""
        rows = rewarded(decode(batch))
        if not rows.num_rows:
            return
        ids = self._ids.get()
        items = positions(rows.column(CANDIDATE_ID), ids)
        there = items >= 0  # others are blocked
        times = single(rows.column(TIMESTAMP)).to_numpy()
        histories = lists(rows, self._history)
        lengths = np.diff(histories.offsets.to_numpy())
        found = pd.DataFrame({"row": items, "count": 1, "first": times})[there]
        yield from _parted(ITEMS, found, items[there] // BLOCK_ITEMS)
        sources = positions(histories.values, ids)
        pairs = pd.DataFrame({"source": sources, "target": np.repeat(items, lengths), "count": 1})
        pairs = pairs[
            (sources >= 0) & (pairs["target"] >= 0)
        ]  # what has left the catalogue leads nowhere, and is not led to
        yield from _parted(PAIRS, pairs, pairs["source"].to_numpy() // BLOCK_ITEMS)
        users = single(rows.column(QUERY_ID)).to_numpy(zero_copy_only=False)
        parts = np.array([user_part(user, self._parts) for user in users])
        yield from _parted(USERS, pd.DataFrame({"user": users, "first": times, "history": lengths}), parts)


class TakeValues(beam.DoFn):
    """Batches of serialised held-out interactions to how often they have which value of some features."""

    def __init__(self, features: Sequence[str]) -> None:
        self._features = features

    def process(self, batch: Sequence[bytes]) -> Iterator[tuple[Key, pd.DataFrame]]:
        """Called by Beam."""
        rows = rewarded(decode(batch))
        for name in self._features:
            values = lists(rows, name).values.to_numpy(zero_copy_only=False)
            if len(values):
                yield (VALUES, 0), _MERGE[VALUES](pd.DataFrame({"feature": name, "value": values, "count": 1}))


class WriteFacts(beam.DoFn):
    """(kind and part, what was taken) to a file, which has its name once it is whole."""

    def __init__(self, most_neighbours: int, most_values: Mapping[str, int], folder: str) -> None:
        self._most_neighbours = most_neighbours
        self._most_values = most_values
        self._folder = folder

    def process(self, element: tuple[Key, Iterable[pd.DataFrame]]) -> None:
        """Called by Beam."""
        (kind, part), frames = element
        merged = _MERGE[kind](pd.concat(list(frames), ignore_index=True))
        if kind == PAIRS:
            merged["total"] = merged.groupby("source")["count"].transform("sum")
            strongest = merged.sort_values(["source", "count", "target"], ascending=[True, False, True])
            merged = strongest.groupby("source").head(self._most_neighbours)
        if kind == VALUES:
            commonest = merged.sort_values(["feature", "count", "value"], ascending=[True, False, True])
            merged = commonest[commonest.groupby("feature").cumcount() < commonest["feature"].map(self._most_values)]
        content = io.BytesIO()
        merged.to_parquet(content, index=False)
        path = os.path.join(self._folder, _name(kind, part))
        fileio.makedirs(self._folder)
        io_utils.write_bytes_file(f"{path}.unfinished", content.getvalue())
        fileio.rename(f"{path}.unfinished", path, overwrite=True)


def user_part(user: bytes, parts: int) -> int:
    """The part of a user, the same in every process."""
    return int.from_bytes(hashlib.blake2b(user, digest_size=8).digest(), "big") % parts


def read(folder: str, kind: str, part: int | None = None) -> pd.DataFrame:
    """The facts of a kind, in the order of their parts; without rows where there are none."""
    names = sorted(fileio.listdir(folder)) if fileio.exists(folder) else []
    wanted = [n for n in names if n.startswith(f"{kind}-") and n.endswith(".parquet")]
    if part is not None:
        wanted = [name for name in wanted if name == _name(kind, part)]
    frames = []
    for name in wanted:
        with fileio.open(os.path.join(folder, name), "rb") as file:
            frames.append(pd.read_parquet(io.BytesIO(file.read())))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_COLUMNS[kind])


def decode(serialized: Sequence[bytes]) -> pa.RecordBatch:
    """Serialised tf.Examples to a column a feature, each a list."""
    return example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(list(serialized))


def rewarded(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The interactions that retrieval should lead to."""
    return rows.filter(pc.greater(single(rows.column(REWARD)), 0.0))


def single(column: pa.Array) -> pa.Array:
    """A column of lists of one value each to the values."""
    return pc.list_flatten(column)


def positions(ids: pa.Array, catalogue: pa.Array) -> NDArray[np.int64]:
    """Item ids, or lists of one id each, to rows of the catalogue; -1 where it has no such item."""
    values = single(ids) if pa.types.is_list(ids.type) or pa.types.is_large_list(ids.type) else ids
    found = pc.index_in(values.cast(pa.binary()), value_set=catalogue)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def lists(rows: pa.RecordBatch, feature: str | None) -> pa.ListArray:
    """A feature's values, a list a row; empty lists where there is no such feature, as when no row has a value of it."""
    if feature is None or feature not in rows.schema.names or pa.types.is_null(rows.schema.field(feature).type):
        return pa.ListArray.from_arrays(pa.array(np.zeros(rows.num_rows + 1), pa.int32()), pa.array([], pa.binary()))
    column = rows.column(feature)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(column)
    values = values.cast(pa.binary()) if pa.types.is_large_binary(values.type) else values
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def earliest(users: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Each user's earliest interaction of several frames of `users`; of several in one moment that with the longest history."""
    there = [frame for frame in users if len(frame)]
    together = pd.concat(there, ignore_index=True)
    return together.sort_values(["user", "first", "history"], ascending=[True, True, False]).drop_duplicates("user")


_COLUMNS = {
    ITEMS: ["row", "count", "first"],
    PAIRS: ["source", "target", "count", "total"],
    USERS: ["user", "first", "history"],
    VALUES: ["feature", "value", "count"],
}
_MERGE: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    ITEMS: lambda frame: frame.groupby("row", as_index=False).agg({"count": "sum", "first": "min"}),
    PAIRS: lambda frame: frame.groupby(["source", "target"])["count"].sum().reset_index(),
    USERS: lambda frame: earliest([frame]),
    VALUES: lambda frame: frame.groupby(["feature", "value"])["count"].sum().reset_index(),
}


def _parted(kind: str, frame: pd.DataFrame, parts: NDArray[np.int64]) -> Iterator[tuple[Key, pd.DataFrame]]:
    for part in np.unique(parts).tolist():
        yield (kind, part), _MERGE[kind](frame[parts == part])


def _name(kind: str, part: int) -> str:
    return f"{kind}-{part:05d}.parquet"


def _batches() -> beam.PTransform:
    return beam.BatchElements(min_batch_size=BATCH, max_batch_size=BATCH)
