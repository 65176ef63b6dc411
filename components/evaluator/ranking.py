"""Exact places of true items among a whole catalogue, by blocked matrix products."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

TIE = 1e-6
"""Scores this close count as equal. Sums of 64 float32 products differ in their last bits with the order of summation, so the same
item scored in two blocks must not beat itself. It is absolute, made for unit vectors, whose scores are in [-1, 1]."""

BLOCK_ITEMS, BLOCK_QUERIES = 510, 512  # their float32 scores are 1 MB, which a core keeps near
MOST_IN_A_BYTE = 255


class Ranks(NamedTuple):
    """Where true items stand, without pretending to order equal scores.

    Attributes:
        above: [queries] int64, items that score higher than the true one.
        tied: [queries] int64, other items that score the same.
    """

    above: NDArray[np.int64]
    tied: NDArray[np.int64]


class Excluded(NamedTuple):
    """Items of each query, such as those that are not ranked for it; its true item always is.

    Attributes:
        offsets: [queries + 1] int64; the n-th query's items are `rows[offsets[n]:offsets[n + 1]]`.
        rows: int64; twice the same is once.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    def of(self, queries: NDArray[np.int64]) -> "Excluded":
        """The lists of some of the queries."""
        lengths = np.diff(self.offsets)[queries]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        entries = np.repeat(self.offsets[:-1][queries] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Excluded(offsets, self.rows[entries])


class Bonuses(NamedTuple):
    """What is added to the scores of some items of each query, such as those of its history.

    Attributes:
        offsets: [queries + 1] int64; the n-th query's items are `rows[offsets[n]:offsets[n + 1]]`, each once.
        rows: int64.
        values: float32, as many as rows.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def of_rows(cls, rows: NDArray[np.int64], values: NDArray[np.float32]) -> "Bonuses":
        """Of [queries, n] rows, negative ones for none, and as many values."""
        there = rows >= 0
        return cls(np.concatenate([[0], np.cumsum(there.sum(axis=1))]), rows[there], values[there].astype(np.float32))

    @classmethod
    def of_ids(
        cls, ids: NDArray[np.int64], values: NDArray[np.float32], known: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> "Bonuses":
        """Of [queries, n] ids and as many values, given all ids that are known, ascending, and the row of each."""
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return cls.of_rows(np.where(known[places] == ids, rows[places], -1), values)

    def of(self, queries: NDArray[np.int64]) -> "Bonuses":
        """Those of some of the queries."""
        numbered = Excluded(self.offsets, np.arange(len(self.rows))).of(queries)
        return Bonuses(numbered.offsets, self.rows[numbered.rows], self.values[numbered.rows])

    @property
    def queries(self) -> NDArray[np.int64]:
        """The number of each value's query."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def of_items(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """[queries] or [queries, n] rows, an item or more of each query, to their bonuses, 0 where there is none."""
        size = 1 + max(self.rows.max(initial=0), rows.max(initial=0))
        keys = self.queries * size + self.rows
        order = np.argsort(keys)
        wanted = np.arange(len(rows)).reshape(-1, *[1] * (rows.ndim - 1)) * size + rows
        places = np.searchsorted(keys[order], wanted)
        known = np.append(keys[order], -1)[places] == wanted
        found: NDArray[np.float32] = np.where(known & (rows >= 0), np.append(self.values[order], 0.0)[places], 0.0)
        return found.astype(np.float32)


def rank_by_embedding(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
    bonuses: Bonuses | None = None,
) -> Ranks:
    """Ranks each query's true item by inner product, and what is added to it.

    NaN never helps: an item with a NaN score ranks above the true item; a true item with one ranks last.

    Args:
        queries: [queries, width].
        items: [items, width], the whole catalogue.
        true_rows: [queries], the row of each query's true item in `items`.
        excluded: items that are not ranked.
        bonuses: what is added; None adds nothing.

    Raises:
        ValueError: shapes that do not fit, or rows that the catalogue does not have.
    """
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(f"expected queries and items of one width, received {queries.shape} and {items.shape}")
    left_out = not_counted(true_rows, len(items), excluded)
    true_scores = np.einsum("qw,qw->q", queries, items[true_rows])
    if bonuses is not None:
        true_scores += bonuses.of_items(true_rows)
    counts = np.zeros((2, len(queries)), np.int64)
    cores = len(os.sched_getaffinity(0))
    # Each thread has a share of the items and multiplies on its own: what it multiplied is still near when it is compared.
    share = -(-len(items) // cores)
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(cores) as threads:
        for start in range(0, len(queries), BLOCK_QUERIES):
            chosen = slice(start, start + BLOCK_QUERIES)
            added = bonuses and bonuses.of(np.arange(len(queries))[chosen])
            block = _Block(queries[chosen], true_scores[chosen], left_out.of(start, start + BLOCK_QUERIES), added)
            shares = [(first, min(first + share, len(items))) for first in range(0, len(items), share)]
            counts[:, chosen] = sum(threads.map(partial(block.count, items), shares))
    not_above, below = counts
    ranked = len(items) - left_out.number
    nowhere = ~np.isfinite(true_scores)
    # What is not counted was given the lowest score, so it is below.
    above = np.where(nowhere, ranked, len(items) - not_above)
    return Ranks(above, np.where(nowhere, 0, not_above - below))


def rank_by_score(scores: NDArray[np.float64], true_rows: NDArray[np.int64], excluded: Excluded | None = None) -> Ranks:
    """Ranks each query's true item by a score that is the same for every query, such as popularity.

    Args:
        scores: [items], the whole catalogue.
        true_rows: [queries], the row of each query's true item in `scores`.
        excluded: items that are not ranked.

    Raises:
        ValueError: rows that the catalogue does not have.
    """
    left_out = not_counted(true_rows, len(scores), excluded)
    true_scores = scores[true_rows]
    ascending = np.sort(scores)
    first = np.searchsorted(ascending, true_scores, side="left")
    after = np.searchsorted(ascending, true_scores, side="right")
    theirs, own = scores[left_out.rows], true_scores[left_out.queries]
    above = len(scores) - after - left_out.sums(theirs > own)
    tied = after - first - left_out.sums(theirs == own)
    return Ranks(above.astype(np.int64), tied.astype(np.int64))


def top_rows(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    k: int,
    excluded: Excluded | None = None,
    bonuses: Bonuses | None = None,
) -> NDArray[np.int64]:
    """The exact first k items of each query by inner product, and what is added to it.

    Of items with equal scores on the last place, which are there is FAISS's choice; the same arguments give the same ones.

    Args:
        queries: [queries, width].
        items: [items, width].
        k: how many.
        excluded: items that are not retrieved.
        bonuses: what is added; None adds nothing.

    Returns:
        [queries, k] int64 rows of `items`, the best first; -1 where there are no more.
    """
    queries, items = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(items, np.float32)
    longest = sum(int(np.diff(each.offsets).max(initial=0)) for each in (excluded, bonuses) if each)
    scores, rows = faiss.knn(queries, items, min(k + longest, len(items)), metric=faiss.METRIC_INNER_PRODUCT)
    if bonuses:
        rows = _with_bonuses(scores, rows, queries, items, bonuses)
    if excluded:
        listed = np.repeat(np.arange(len(queries)), np.diff(excluded.offsets)) * len(items) + excluded.rows
        found = np.arange(len(queries))[:, np.newaxis] * len(items) + rows
        rows = np.where(np.isin(found, listed), -1, rows)
        rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
    missing = max(0, k - rows.shape[1])
    return np.pad(rows[:, :k], ((0, 0), (0, missing)), constant_values=-1)


def _with_bonuses(
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    bonuses: Bonuses,
) -> NDArray[np.int64]:
    """[queries, n] found rows and scores to the rows in the order of their scores with bonuses, and behind them what has one."""
    number = bonuses.queries
    place = np.arange(len(bonuses.rows)) - bonuses.offsets[:-1][number]
    width = int(place.max(initial=-1)) + 1
    own_rows = np.full((len(queries), width), -1, np.int64)
    own_scores = np.full((len(queries), width), -np.inf, np.float32)
    own_rows[number, place] = bonuses.rows
    own_scores[number, place] = np.einsum("pw,pw->p", queries[number], items[bonuses.rows]) + bonuses.values
    keys = np.arange(len(queries))[:, np.newaxis] * len(items)
    is_own = np.isin(keys + rows, number * len(items) + bonuses.rows)
    all_rows = np.concatenate([np.where(is_own, -1, rows), own_rows], axis=1)
    all_scores = np.concatenate([np.where(is_own, -np.inf, scores), own_scores], axis=1)
    return np.take_along_axis(all_rows, np.argsort(-all_scores, axis=1, kind="stable"), axis=1)


class NotCounted(NamedTuple):
    """Pairs of a query and an item that is left out of the counts: its true item, and what is excluded.

    Attributes:
        queries: [pairs] int64, ascending.
        rows: [pairs] int64.
        number: [queries] int64, pairs of each query.
    """

    queries: NDArray[np.int64]
    rows: NDArray[np.int64]
    number: NDArray[np.int64]

    def of(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows, ascending, of queries from start to end, and the queries, from 0."""
        first, after = np.searchsorted(self.queries, [start, end])
        order = np.argsort(self.rows[first:after], kind="stable")
        return self.rows[first:after][order], self.queries[first:after][order] - start

    def sums(self, flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[pairs] flags to how many of each query's are set."""
        return np.bincount(self.queries[flags], minlength=len(self.number))


def not_counted(true_rows: NDArray[np.int64], items: int, excluded: Excluded | None) -> NotCounted:
    """The pairs that are left out where true items of a catalogue are ranked.

    Raises:
        ValueError: rows that the catalogue does not have.
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


class _Block:
    """Counts for a block of queries, over any of the items."""

    def __init__(
        self,
        queries: NDArray[np.float32],
        true_scores: NDArray[np.float32],
        not_counted: tuple[NDArray[np.int64], NDArray[np.int64]],
        bonuses: Bonuses | None,
    ) -> None:
        self._columns = np.ascontiguousarray(queries.T)
        self._bounds = true_scores + np.float32(TIE), true_scores - np.float32(TIE)
        self._rows, self._queries = not_counted
        self._added = None
        if bonuses is not None:
            order = np.argsort(bonuses.rows, kind="stable")
            self._added = bonuses.rows[order], bonuses.queries[order], bonuses.values[order]

    def count(self, items: NDArray[np.float32], ends: tuple[int, int]) -> NDArray[np.int64]:
        """[2, queries] int64: of the items between two rows, those that are not above the true one, and those below it."""
        number = self._columns.shape[1]
        scores = np.empty((BLOCK_ITEMS, number), np.float32)
        flags = np.empty((BLOCK_ITEMS, number), np.bool_)
        upper, lower = self._bounds
        counted = np.zeros((2, number), np.int64)
        for start in range(*ends, BLOCK_ITEMS):
            end = min(start + BLOCK_ITEMS, ends[1])
            block, flag = scores[: end - start], flags[: end - start]
            np.matmul(items[start:end], self._columns, out=block)
            if self._added is not None:
                rows, queries, values = (
                    each[slice(*np.searchsorted(self._added[0], [start, end]))] for each in self._added
                )
                block[rows - start, queries] += values  # each pair once
            chosen = slice(*np.searchsorted(self._rows, [start, end]))
            block[self._rows[chosen] - start, self._queries[chosen]] = -np.inf
            counted[0] += _column_sums(np.less_equal(block, upper, out=flag))
            counted[1] += _column_sums(np.less(block, lower, out=flag))
        return counted


def _column_sums(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[rows, columns] to how many of each column are set, added up in bytes, which is many times as fast as in words."""
    bytes_ = flags.view(np.uint8)
    total = np.zeros(flags.shape[1], np.int64)
    for start in range(0, len(flags), MOST_IN_A_BYTE):
        total += np.add.reduce(bytes_[start : start + MOST_IN_A_BYTE], axis=0, dtype=np.uint8)
    return total


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
