"""The scan of a whole catalogue for a block of queries: how many items score higher than the true one, and which are the first.

The catalogue is divided into shards, one after another in memory: the number of items above the true one is the sum over the
shards, and the first items are the first of those that each shard collects. The embeddings may lie on disk
(`components.indexer.on_disk`). A shard consists of whole blocks, so that no result depends on the division.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import ThreadpoolController

from components.evaluator.query_items import Bonuses, Excluded

TIE = 1e-6
"""Scores this close count as equal. Sums of 64 float32 products differ in their last bits with the order of summation, so the same
item scored in two blocks must not beat itself. The tolerance is absolute, for unit vectors, whose scores are in [-1, 1]."""

BLOCK_ITEMS, BLOCK_QUERIES = 510, 512  # their float32 scores are 1 MB, which fits a core's cache
SHARD_BYTES = 1 << 28  # of the embeddings that all queries are compared with before the next are read
MOST_IN_A_BYTE = 255
SAMPLED_ITEMS = 1024  # their scores give a threshold above which items are collected as candidates for the first
MISSES = 1e-3  # the expected share of queries that need a second search, because too few items were collected
DENSE_SCORES = 1 << 22  # 16 MB of float32, if all scores of a query are kept
NO_KEY = np.uint64(2**64 - 1)


class BlockSearch:
    """The search of a block of queries over all items.

    Args:
        queries: [queries, width].
        items: [items, width].
        excluded: items that are not retrieved.
        bonuses: added to scores.
        true_items: [queries] rows and scores of the true items, if they are ranked.
        k: the number of first items to retrieve.
        left_out: the rows, ascending, and queries of pairs that are neither counted nor, except true items, collected.

    Attributes:
        counts: [2, queries] int64, the items scanned so far that are not above the true one, and those below it.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        items: NDArray[np.float32],
        excluded: Excluded | None,
        bonuses: Bonuses | None,
        true_items: tuple[NDArray[np.int64], NDArray[np.float32]] | None,
        k: int,
        left_out: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        self._queries, self._items = queries, items
        self._left_out = left_out
        self.counts = np.zeros((2, len(queries)), np.int64)
        self._collected: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self._columns = np.ascontiguousarray(queries.T)
        self._excluded, self._bonuses = excluded, bonuses
        self._own = true_items
        self._k = k
        self._added = None
        if bonuses is not None:
            order = np.argsort(bonuses.rows, kind="stable")
            self._added = bonuses.rows[order], bonuses.queries[order], bonuses.values[order]
        self._bounds = (
            None if true_items is None else (true_items[1] + np.float32(TIE), true_items[1] - np.float32(TIE))
        )
        self._floors = self._collected_above() if k else None

    def scan(self, start: int, end: int, threads: ThreadPoolExecutor) -> None:
        """Compare the queries with the items between two rows: add to the counts, collect candidates for the first.

        Args:
            start: a multiple of `BLOCK_ITEMS`.
            end: the row after the last.
            threads: a thread for each core.
        """
        # Blocks do not depend on the number of threads, because the last bit of a product may depend on its block.
        cores = len(os.sched_getaffinity(0))
        share = BLOCK_ITEMS * max(1, -(-(end - start) // (BLOCK_ITEMS * cores)))
        shares = [(first, min(first + share, end)) for first in range(start, end, share)]
        for counted, collected in threads.map(self._scan_share, shares):
            self.counts += counted
            self._collected += collected

    def _scan_share(
        self, ends: tuple[int, int]
    ) -> tuple[NDArray[np.int64], list[tuple[NDArray[np.int64], NDArray[np.float32]]]]:
        """Count, among the items between two rows, those not above and those below the true one, [2, queries]; collect candidates.

        A collected candidate is row * queries + query, and its score.
        """
        number = self._columns.shape[1]
        scores = np.empty((BLOCK_ITEMS, number), np.float32)
        flags = np.empty((BLOCK_ITEMS, number), np.bool_)
        counted = np.zeros((2, number), np.int64)
        collected = []
        for start in range(*ends, BLOCK_ITEMS):
            end = min(start + BLOCK_ITEMS, ends[1])
            block, flag = scores[: end - start], flags[: end - start]
            np.matmul(self._items[start:end], self._columns, out=block)
            if self._added is not None:
                rows, queries, values = (
                    column[slice(*np.searchsorted(self._added[0], [start, end]))] for column in self._added
                )
                block[rows - start, queries] += values  # each pair once
            chosen = slice(*np.searchsorted(self._left_out[0], [start, end]))
            block[self._left_out[0][chosen] - start, self._left_out[1][chosen]] = -np.inf
            if self._floors is not None:
                above = np.flatnonzero(np.greater(block, self._floors, out=flag))
                collected.append((start * number + above, block.reshape(-1)[above]))
            if self._bounds is not None:
                upper, lower = self._bounds
                counted[0] += _column_sums(np.less_equal(block, upper, out=flag))
                counted[1] += _column_sums(np.less(block, lower, out=flag))
        return counted, collected

    def _collected_above(self) -> NDArray[np.float32]:
        """Estimate from a sample of the items [queries] thresholds above which there are most likely k items, and few more."""
        sample = self._items[:: max(1, len(self._items) // SAMPLED_ITEMS)]
        lengths = np.diff(self._excluded.offsets) if self._excluded else np.zeros(len(self._queries), np.int64)
        expected = (self._k + lengths) * (len(sample) / len(self._items))
        place = stats.poisson.isf(MISSES, expected).astype(np.int64) + 1
        ascending = np.sort(np.nan_to_num(self._queries @ sample.T, nan=-np.inf), axis=1)
        floors = ascending[np.arange(len(place)), np.maximum(0, len(sample) - place)]
        return np.where(place > len(sample), np.float32(-np.inf), floors)

    def first(self) -> NDArray[np.int64]:
        """Return [queries, k] rows with the highest scores, after all items were scanned."""
        number = len(self._queries)
        if self._floors is None:
            return np.zeros((number, 0), np.int64)
        flat, scores = (np.concatenate(arrays) for arrays in zip(*self._collected, strict=True))
        rows, queries = np.divmod(flat, number)
        if self._own is not None:  # the true item was left out of the counts, so it was not collected
            own_rows, own_scores = self._own
            shown = np.flatnonzero((own_scores > self._floors) & ~self._is_excluded(own_rows))
            rows, queries = np.append(rows, own_rows[shown]), np.append(queries, shown)
            scores = np.append(scores, own_scores[shown])
        lengths = np.bincount(queries, minlength=number)
        order = np.argsort(queries.astype(np.uint16), kind="stable")
        keys = np.full((number, max(self._k, int(lengths.max(initial=0)))), NO_KEY)
        place = np.arange(len(order)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        keys[queries[order], place] = _keys(scores[order], rows[order])
        retrieved = _rows_of_least(keys, self._k)
        short = np.flatnonzero((lengths < self._k) & np.isfinite(self._floors))
        step = max(1, DENSE_SCORES // len(self._items))
        for start in range(0, len(short), step):
            some = short[start : start + step]
            retrieved[some] = self._first_of_all(some)
        return retrieved

    def _first_of_all(self, some: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [queries, k] rows with the highest scores, for some of the queries, from all scores at once."""
        scores = self._queries[some] @ self._items.T
        if self._bonuses:
            bonuses = self._bonuses.of(some)
            scores[bonuses.queries, bonuses.rows] += bonuses.values
        if self._excluded:
            excluded = self._excluded.of(some)
            scores[excluded.queries, excluded.rows] = -np.inf
        keys = _keys(scores, np.arange(len(self._items)))
        keys[~(scores > -np.inf)] = NO_KEY
        missing = max(0, self._k - len(self._items))
        return _rows_of_least(np.pad(keys, ((0, 0), (0, missing)), constant_values=NO_KEY), self._k)

    def _is_excluded(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether [queries] rows, one for each query, are excluded."""
        if self._excluded is None:
            return np.zeros(len(rows), bool)
        size = len(self._items)
        return np.isin(np.arange(len(rows)) * size + rows, self._excluded.queries * size + self._excluded.rows)


def blocks_of(queries: int) -> list[NDArray[np.int64]]:
    """Return the numbers of the queries of each block."""
    return [np.arange(start, min(start + BLOCK_QUERIES, queries)) for start in range(0, queries, BLOCK_QUERIES)]


def shard_rows(items: NDArray[np.float32]) -> int:
    """Return the number of items in a shard, a multiple of `BLOCK_ITEMS`."""
    return BLOCK_ITEMS * max(1, SHARD_BYTES // (4 * items.shape[1] * BLOCK_ITEMS))


def scan(blocks: list[BlockSearch], items: NDArray[np.float32]) -> None:
    """Compare all blocks of queries with one shard of the items after another."""
    rows = shard_rows(items)
    with _workers() as threads:
        for start in range(0, len(items), rows):
            for asked in blocks:
                asked.scan(start, min(start + rows, len(items)), threads)


def _keys(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Combine scores and rows to one number, lower for higher scores and, among equal scores, for lower rows."""
    bits = (scores + np.float32(0)).view(np.uint32)  # turns -0 into 0
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    return falling.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


def _rows_of_least(keys: NDArray[np.uint64], k: int) -> NDArray[np.int64]:
    """Return the rows of the least k of [queries, n] keys, in order; -1 for NO_KEY."""
    least = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    return np.where(least == NO_KEY, -1, (least & np.uint64(0xFFFFFFFF)).astype(np.int64))


def _column_sums(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the flags of each column of [rows, columns], in bytes, which is many times as fast as in words."""
    bytes_ = flags.view(np.uint8)
    total = np.zeros(flags.shape[1], np.int64)
    for start in range(0, len(flags), MOST_IN_A_BYTE):
        total += np.add.reduce(bytes_[start : start + MOST_IN_A_BYTE], axis=0, dtype=np.uint8)
    return total


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Start a thread for each core with its own products: their results are still in the core's cache when compared."""
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        yield threads


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
