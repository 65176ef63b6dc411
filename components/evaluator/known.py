"""Counts of the items of a catalogue, from earlier days and the day's training split."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from components.counts import files
from components.evaluator.cooccurrence import Neighbours
from components.evaluator.positions import positions

NEVER = np.iinfo(np.int64).max


class Known(NamedTuple):
    """Counts by the catalogue's rows, in units of 1 / `components.counts.files.ONE` of an interaction.

    Attributes:
        counts: [items] int64, interactions.
        recent: [items] int64, those of the last days.
        first: [items] int64, microseconds of the earliest; NEVER without one.
        neighbours: the items that co-occur with a history's.
    """

    counts: NDArray[np.int64]
    recent: NDArray[np.int64]
    first: NDArray[np.int64]
    neighbours: Neighbours

    @classmethod
    def read(cls, folders: Sequence[str], ids: pa.Array, as_of: int, most_neighbours: int) -> "Known":
        """Add up the counts of several folders, as `components.counts.files.read` does.

        Ignores items that the catalogue does not have, and pairs with them.

        Args:
            folders: of `components.counts.files`.
            ids: the catalogue's ids, binary, in the order of the rows.
            as_of: the span that counts are decayed to.
            most_neighbours: targets to keep of each source.

        Raises:
            UserError: a folder is incomplete.
        """
        size = len(ids)
        counts, recent, totals = (np.zeros(size, np.int64) for _ in range(3))
        first = np.full(size, NEVER)
        sources, targets, pair_counts = ([np.zeros(0, np.int64)] for _ in range(3))
        for folder in folders:
            description = files.describe(folder)
            by = description.factor(as_of)
            items = files.read_table(folder, files.ITEMS, 0, description)
            rows, is_listed = _rows(items, "item", ids)
            np.add.at(counts, rows, _decayed(items, "count", by)[is_listed])
            np.minimum.at(first, rows, items.column("first").to_numpy()[is_listed])
            days = files.read_table(folder, files.DAYS, 0, description)
            rows, is_listed = _rows(days, "item", ids)
            spans = days.column("span").to_numpy()[is_listed]
            is_recent = (spans > as_of - files.RECENT_DAYS) & (spans <= as_of)
            np.add.at(recent, rows[is_recent], days.column("count").to_numpy()[is_listed][is_recent])
            of_folder = np.zeros(size, np.int64)
            for partition in range(files.PARTITIONS[files.PAIRS]):
                pairs = files.read_table(folder, files.PAIRS, partition, description)
                source, target = (positions(pairs.column(name).combine_chunks(), ids) for name in ("source", "target"))
                is_listed = (source >= 0) & (target >= 0)
                of_folder[source[source >= 0]] = _decayed(pairs, "total", by)[source >= 0]
                sources.append(source[is_listed])
                targets.append(target[is_listed])
                pair_counts.append(_decayed(pairs, "count", by)[is_listed])
            totals += of_folder
        together = sparse.coo_array(
            (np.concatenate(pair_counts), (np.concatenate(sources), np.concatenate(targets))), shape=(size, size)
        ).tocsr()
        return cls(counts, recent, first, Neighbours.build(together, totals, counts, most_neighbours))


def _rows(table: pa.Table, column: str, ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the catalogue rows of entries that have one, and which entries these are."""
    rows = positions(table.column(column).combine_chunks(), ids)
    return rows[rows >= 0], rows >= 0


def _decayed(table: pa.Table, column: str, by: float) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = table.column(column).to_numpy()
    return counts if by == 1.0 else np.rint(counts * by).astype(np.int64)
