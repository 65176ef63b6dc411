"""Items of each query: those that are not ranked for it, and those with a bonus."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import ragged


class Excluded(NamedTuple):
    """Items of each query, such as those that are not ranked for it; its true item always is.

    Attributes:
        offsets: [queries + 1] int64; the n-th query's items are `rows[offsets[n]:offsets[n + 1]]`.
        rows: int64; may repeat.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def queries(self) -> NDArray[np.int64]:
        """The number of each row's query."""
        return ragged.rows(self.offsets)

    def of(self, queries: NDArray[np.int64]) -> "Excluded":
        """Return the lists of some of the queries."""
        lengths = np.diff(self.offsets)[queries]
        offsets = ragged.offsets(lengths)
        entries = np.repeat(self.offsets[:-1][queries] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Excluded(offsets, self.rows[entries])


class Bonuses(NamedTuple):
    """Bonuses on the scores of some items of each query, such as those of its history.

    Attributes:
        offsets: [queries + 1] int64; the n-th query's items are `rows[offsets[n]:offsets[n + 1]]`, each once.
        rows: int64.
        values: float32, one for each row.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64], values: NDArray[np.float32]) -> "Bonuses":
        """Make them from [queries, n] rows, negative for none, and as many values."""
        is_item = rows >= 0
        return cls(ragged.offsets(is_item.sum(axis=1)), rows[is_item], values[is_item].astype(np.float32))

    @classmethod
    def of_ids(
        cls, ids: NDArray[np.int64], values: NDArray[np.float32], known: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> "Bonuses":
        """Make them from [queries, n] ids and as many values, given all known ids, ascending, and the row of each."""
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return cls.of_rows(np.where(known[places] == ids, rows[places], -1), values)

    def of(self, queries: NDArray[np.int64]) -> "Bonuses":
        """Return the bonuses of some of the queries."""
        numbered = Excluded(self.offsets, np.arange(len(self.rows))).of(queries)
        return Bonuses(numbered.offsets, self.rows[numbered.rows], self.values[numbered.rows])

    @property
    def queries(self) -> NDArray[np.int64]:
        """The number of each value's query."""
        return ragged.rows(self.offsets)

    def of_items(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the bonuses of [queries] or [queries, n] rows, one or more items for each query; 0 for none."""
        size = 1 + max(self.rows.max(initial=0), rows.max(initial=0))
        keys = self.queries * size + self.rows
        order = np.argsort(keys)
        wanted = np.arange(len(rows)).reshape(-1, *[1] * (rows.ndim - 1)) * size + rows
        places = np.searchsorted(keys[order], wanted)
        is_known = np.append(keys[order], -1)[places] == wanted
        bonuses: NDArray[np.float32] = np.where(is_known & (rows >= 0), np.append(self.values[order], 0.0)[places], 0.0)
        return bonuses.astype(np.float32)


class NotCounted(NamedTuple):
    """Pairs of a query and an item that is not counted: its true item, and excluded items.

    Attributes:
        queries: [pairs] int64, ascending.
        rows: [pairs] int64.
        number: [queries] int64, the number of pairs of each query.
    """

    queries: NDArray[np.int64]
    rows: NDArray[np.int64]
    number: NDArray[np.int64]

    def of(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows, ascending, of queries from start to end, and the queries, from 0."""
        first, after = np.searchsorted(self.queries, [start, end])
        order = np.argsort(self.rows[first:after], kind="stable")
        return self.rows[first:after][order], self.queries[first:after][order] - start

    def sums(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count each query's flags, given [pairs]."""
        return np.bincount(self.queries[flags], minlength=len(self.number))


def not_counted(true_rows: NDArray[np.int64], items: int, excluded: Excluded | None) -> NotCounted:
    """Return the pairs that are not counted when true items of a catalogue are ranked.

    Raises:
        ValueError: the catalogue lacks a row.
    """
    queries, rows = np.arange(len(true_rows)), np.asarray(true_rows, np.int64)
    if excluded is not None:
        if len(excluded.offsets) != len(true_rows) + 1:
            raise ValueError(f"expected {len(true_rows) + 1} offsets, received {len(excluded.offsets)}")
        queries = np.concatenate([queries, np.repeat(queries, np.diff(excluded.offsets))])
        rows = np.concatenate([rows, excluded.rows])
    if len(rows) and not 0 <= rows.min() <= rows.max() < items:
        raise ValueError(f"expected rows of a catalogue of {items} items, received {rows.min()} to {rows.max()}")
    pairs = np.unique(queries * items + rows)
    queries, rows = np.divmod(pairs, items)
    return NotCounted(queries, rows, np.bincount(queries, minlength=len(true_rows)))
