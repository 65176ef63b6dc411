"""Ranks of true items by sparse scores; items with equal scores are ordered by popularity."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from components import ragged
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import Ranks, rank_by_score

FLAGS = 1 << 26  # bytes to mark excluded items in


def rank_by_entries(
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
) -> Ranks:
    """Rank each query's true item by its score; among items with equal or no scores, the more popular ranks higher.

    Args:
        scores: [queries, items] int64, not negative. The order of a query's entries does not matter.
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
    true_entries = np.flatnonzero(is_true)
    counted[true_entries] = False
    queries_of_true = np.searchsorted(offsets, true_entries, side="right") - 1
    true_scores = np.bincount(queries_of_true, values[true_entries], minlength=len(true_rows)).astype(np.int64)
    bound = np.repeat(true_scores, lengths)
    above = _sums(counted & (values > bound), offsets)
    # Popularity decides among items with the true item's score.
    level = np.flatnonzero(counted & (values == bound))
    more, tied = _by_popularity(level, scores, popularity, true_rows)
    above += more
    # A true item without a score ranks after all that have one, by popularity among the rest.
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
    """Return the first k items of each query.

    Args:
        scores: as in `rank_by_entries`; for a query without any, the most popular items are the first.
        popularity: [items] interactions.
        k: the number of items.
        excluded: items that are not retrieved.

    Returns:
        [queries, k] int64 rows, the best first, ties by the lower row; -1 for none.
    """
    number, size = scores.shape
    popular = np.argsort(-popularity, kind="stable")
    place = np.empty(size, np.int64)
    place[popular] = np.arange(size)
    lengths = np.diff(scores.indptr)
    ranked = scores.data > 0
    if excluded is not None:
        ranked &= ~_listed(scores, excluded)
    queries, rows, values = np.repeat(np.arange(number), lengths)[ranked], scores.indices[ranked], scores.data[ranked]
    ends = np.searchsorted(queries, np.arange(number + 1))
    top = np.full((number, k), -1)
    for query, (start, end) in enumerate(pairwise(ends.tolist())):
        best = _best(values[start:end], place[rows[start:end]], k)
        top[query, : len(best)] = rows[start:end][best]
    # Queries with fewer scored items continue with popular ones.
    longest = int(np.diff(excluded.offsets).max(initial=0)) if excluded else 0
    for query in np.flatnonzero(np.diff(ends) < k).tolist():
        scored = rows[ends[query] : ends[query + 1]]
        seen = excluded.rows[slice(*excluded.offsets[query : query + 2])] if excluded else scored[:0]
        candidates = popular[: k + longest + len(scored)]
        new = candidates[~np.isin(candidates, np.concatenate([scored, seen]))][: k - len(scored)]
        top[query, len(scored) : len(scored) + len(new)] = new
    return top


def top_by_popularity(
    queries: int, popularity: NDArray[np.int64], k: int, excluded: Excluded | None = None
) -> NDArray[np.int64]:
    """Return the first k items of each query by popularity only; see `top_by_entries`."""
    popular = np.argsort(-popularity, kind="stable")[:k]
    if excluded is None:
        top = np.full((queries, k), -1)
        top[:, : len(popular)] = popular
        return top
    return top_by_entries(sparse.csr_array((queries, len(popularity)), dtype=np.int64), popularity, k, excluded)


def _best(values: NDArray[np.int64], places: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the positions of the k greatest values, the greatest first; ties by the lower place."""
    greatest = np.arange(len(values))
    if len(values) > k:
        least = np.partition(values, len(values) - k)[len(values) - k]
        greatest = np.flatnonzero(values >= least)  # with all that are tied with the last
    return greatest[np.lexsort((places[greatest], -values[greatest]))][:k]


def _by_popularity(
    entries: NDArray[np.int64],
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count among some entries those more popular than the query's true item, and those equally popular, [queries] each."""
    queries = np.searchsorted(scores.indptr, entries, side="right") - 1
    theirs, of_true = popularity[scores.indices[entries]], popularity[true_rows][queries]
    more, as_much = (
        np.bincount(queries[flags], minlength=len(true_rows)) for flags in (theirs > of_true, theirs == of_true)
    )
    return more.astype(np.int64), as_much.astype(np.int64)


def _listed(scores: sparse.csr_array, excluded: Excluded) -> NDArray[np.bool_]:
    """Return for [entries] whether the item is excluded for its query, using a table of flags rather than sorting."""
    number, size = scores.shape
    block = max(1, min(number, FLAGS // size))
    flags = np.zeros(block * size, bool)
    listed = np.zeros(len(scores.data), bool)
    for start in range(0, number, block):
        end = min(start + block, number)
        exclusions = slice(*excluded.offsets[[start, end]])
        keys = (
            np.repeat(np.arange(end - start) * size, np.diff(excluded.offsets[start : end + 1]))
            + excluded.rows[exclusions]
        )
        entries = slice(*scores.indptr[[start, end]])
        theirs = np.repeat(np.arange(end - start) * size, np.diff(scores.indptr[start : end + 1]))
        flags[keys] = True
        listed[entries] = flags[theirs + scores.indices[entries]]
        flags[keys] = False
    return listed


def _sums(flags: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count each query's flags, given [entries]."""
    before = ragged.offsets(flags)
    return before[offsets[1:]] - before[offsets[:-1]]
