"""Places of true items by scores of which most are 0; items that score alike stand in the order of their popularity."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.ranking import Excluded, Ranks, rank_by_score

FLAGS = 1 << 26  # bytes to mark excluded items in


def rank_by_entries(
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
) -> Ranks:
    """Ranks each query's true item by its score; of items with equal scores, or none, the more popular stands above.

    Args:
        scores: [queries, items] int64, none below 0. The order of a query's entries is of no account.
        popularity: [items] interactions.
        true_rows: [queries], the row of each query's true item.
        excluded: items that are not ranked.
    """
    others = rank_by_score(popularity.astype(np.float64), true_rows, excluded)
    offsets, rows, values = scores.indptr, scores.indices, scores.data
    lengths = np.diff(offsets)
    counted = values > 0
    if excluded is not None:
        counted &= ~_listed(scores, excluded)
    is_true = rows == np.repeat(true_rows.astype(rows.dtype), lengths)
    own = np.flatnonzero(is_true)
    counted[own] = False
    queries_of_own = np.searchsorted(offsets, own, side="right") - 1
    true_scores = np.bincount(queries_of_own, values[own], minlength=len(true_rows)).astype(np.int64)
    bound = np.repeat(true_scores, lengths)
    above = _sums(counted & (values > bound), offsets)
    # Popularity decides among those that score like the true item.
    level = np.flatnonzero(counted & (values == bound))
    more, tied = _by_popularity(level, scores, popularity, true_rows)
    above += more
    # A true item without a score stands behind all that have one, among the others by popularity.
    has_none = true_scores == 0
    scored = np.flatnonzero(counted & np.repeat(has_none, lengths))
    more, as_much = _by_popularity(scored, scores, popularity, true_rows)
    above += np.where(has_none, others.above - more, 0)
    tied += np.where(has_none, others.tied - as_much, 0)
    return Ranks(above, tied)


def top_by_entries(
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    k: int,
    excluded: Excluded | None = None,
) -> NDArray[np.int64]:
    """The first k items of each query.

    Args:
        scores: as in `rank_by_entries`; without any, the most popular items are the first.
        popularity: [items] interactions.
        k: how many.
        excluded: items that are not retrieved.

    Returns:
        [queries, k] int64 rows, the best first, of those that are equal the first; -1 where there are no more.
    """
    number, size = scores.shape
    popular = np.argsort(-popularity, kind="stable")
    place = np.empty(size, np.int64)
    place[popular] = np.arange(size)
    lengths = np.diff(scores.indptr)
    kept = scores.data > 0
    if excluded is not None:
        kept &= ~_listed(scores, excluded)
    queries, rows, values = np.repeat(np.arange(number), lengths)[kept], scores.indices[kept], scores.data[kept]
    ends = np.searchsorted(queries, np.arange(number + 1))
    top = np.full((number, k), -1)
    for query, (start, end) in enumerate(pairwise(ends.tolist())):
        best = _best(values[start:end], place[rows[start:end]], k)
        top[query, : len(best)] = rows[start:end][best]
    # Queries that lead to fewer continue with what is popular.
    longest = int(np.diff(excluded.offsets).max(initial=0)) if excluded else 0
    for query in np.flatnonzero(np.diff(ends) < k).tolist():
        there = rows[ends[query] : ends[query + 1]]
        seen = excluded.rows[slice(*excluded.offsets[query : query + 2])] if excluded else there[:0]
        candidates = popular[: k + longest + len(there)]
        new = candidates[~np.isin(candidates, np.concatenate([there, seen]))][: k - len(there)]
        top[query, len(there) : len(there) + len(new)] = new
    return top


def top_by_popularity(
    queries: int, popularity: NDArray[np.int64], k: int, excluded: Excluded | None = None
) -> NDArray[np.int64]:
    """The first k items of each query where only popularity counts; see `top_by_entries`."""
    popular = np.argsort(-popularity, kind="stable")[:k]
    if excluded is None:
        top = np.full((queries, k), -1)
        top[:, : len(popular)] = popular
        return top
    return top_by_entries(sparse.csr_array((queries, len(popularity)), dtype=np.int64), popularity, k, excluded)


def _best(values: NDArray[np.int64], places: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Where the k greatest values are, or all if there are fewer, the greatest first; of equal ones the first place."""
    found = np.arange(len(values))
    if len(values) > k:
        least = np.partition(values, len(values) - k)[len(values) - k]
        found = np.flatnonzero(values >= least)  # with all that are level with the last
    ordered: NDArray[np.int64] = found[np.lexsort((places[found], -values[found]))][:k]
    return ordered


def _by_popularity(
    entries: NDArray[np.int64],
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[queries] how many of some entries are more popular than the query's true item, and how many as popular."""
    queries = np.searchsorted(scores.indptr, entries, side="right") - 1
    theirs, own = popularity[scores.indices[entries]], popularity[true_rows][queries]
    more, as_much = (np.bincount(queries[flags], minlength=len(true_rows)) for flags in (theirs > own, theirs == own))
    return more.astype(np.int64), as_much.astype(np.int64)


def _listed(scores: sparse.csr_array, excluded: Excluded) -> NDArray[np.bool_]:
    """[entries], whether the item is excluded for its query: marked in a table rather than sorted."""
    number, size = scores.shape
    block = max(1, min(number, FLAGS // size))
    flags = np.zeros(block * size, bool)
    listed = np.zeros(len(scores.data), bool)
    for start in range(0, number, block):
        end = min(start + block, number)
        own = slice(*excluded.offsets[[start, end]])
        keys = np.repeat(np.arange(end - start) * size, np.diff(excluded.offsets[start : end + 1])) + excluded.rows[own]
        entries = slice(*scores.indptr[[start, end]])
        theirs = np.repeat(np.arange(end - start) * size, np.diff(scores.indptr[start : end + 1]))
        flags[keys] = True
        listed[entries] = flags[theirs + scores.indices[entries]]
        flags[keys] = False
    return listed


def _sums(flags: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[entries] flags to how many of each query's are set."""
    before = np.concatenate([[0], np.cumsum(flags)])
    counted: NDArray[np.int64] = before[offsets[1:]] - before[offsets[:-1]]
    return counted
