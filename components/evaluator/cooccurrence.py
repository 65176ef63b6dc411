"""The item-to-item baseline: what was chosen by those who had seen what the query's history has."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.ranking import Excluded, Ranks, rank_by_score

ONE = 1 << 20
"""The weight of a pair is a whole number of millionths or so: sums of whole numbers do not depend on their order, so that equal
scores are equal."""


class Neighbours(NamedTuple):
    """What the items of a history lead to.

    Attributes:
        weights: [items, items] int64: of the interactions that have the row's item in their history, the share that are with the
            column's.
    """

    weights: sparse.csr_array

    @classmethod
    def build(
        cls,
        source: NDArray[np.int64],
        target: NDArray[np.int64],
        count: NDArray[np.int64],
        total: NDArray[np.int64],
        size: int,
    ) -> "Neighbours":
        """From counts.

        Args:
            source: [pairs], rows of the catalogue.
            target: [pairs], rows of the catalogue; a pair is there once.
            count: [pairs], how often the target was chosen with the source in the history.
            total: [pairs], how often anything was.
            size: items in the catalogue.
        """
        weights = np.rint(ONE * (count / np.maximum(total, 1))).astype(np.int64)
        return cls(sparse.csr_array((weights, (source, target)), shape=(size, size)))

    def scores(self, histories: Excluded) -> sparse.csr_array:
        """[queries, items] int64: for each item the sum of the weights that the items of the history lead to it with.

        Args:
            histories: the rows of each query's history; an item that is there twice counts twice.
        """
        seen = sparse.csr_array(
            (np.ones(len(histories.rows), np.int64), histories.rows, histories.offsets),
            shape=(len(histories.offsets) - 1, self.weights.shape[0]),
        )
        found = seen @ self.weights
        found.eliminate_zeros()
        found.sort_indices()
        return found


def rank_by_cooccurrence(
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
) -> Ranks:
    """Ranks each query's true item by what its history leads to; items that it leads to alike, or not at all, by popularity.

    Args:
        scores: [queries, items] of `Neighbours.scores`.
        popularity: [items] interactions.
        true_rows: [queries], the row of each query's true item.
        excluded: items that are not ranked.
    """
    queries, rows, values = _entries(scores)
    size = len(popularity)
    is_true = rows == true_rows[queries]
    true_scores = np.bincount(queries[is_true], values[is_true], minlength=len(true_rows))
    counted = ~is_true & ~_listed(queries, rows, excluded, size)
    queries, rows, values = queries[counted], rows[counted], values[counted]
    lead = values - true_scores[queries]
    more_popular = popularity[rows] > popularity[true_rows][queries]
    as_popular = popularity[rows] == popularity[true_rows][queries]

    def number(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(queries[flags], minlength=len(true_rows))

    above = number((lead > 0) | ((lead == 0) & more_popular))
    tied = number((lead == 0) & as_popular)
    # A true item that the history does not lead to stands behind all that it does lead to, among the others by popularity.
    others = rank_by_score(popularity.astype(np.float64), true_rows, excluded)
    not_led_to = true_scores == 0
    above += np.where(not_led_to, others.above - number(more_popular), 0)
    tied += np.where(not_led_to, others.tied - number(as_popular), 0)
    return Ranks(above, tied)


def top_by_cooccurrence(
    scores: sparse.csr_array,
    popularity: NDArray[np.int64],
    k: int,
    excluded: Excluded | None = None,
) -> NDArray[np.int64]:
    """The first k items of each query.

    Args:
        scores: [queries, items] of `Neighbours.scores`; without any, the most popular items are the first.
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
    queries, rows, values = _entries(scores)
    kept = ~_listed(queries, rows, excluded, size)
    queries, rows = queries[kept], rows[kept]
    keys = values[kept] * size - place[rows]  # one number in the order of both
    ends = np.searchsorted(queries, np.arange(number + 1))
    top = np.full((number, k), -1)
    for query, (start, end) in enumerate(pairwise(ends.tolist())):
        best = _greatest(keys[start:end], k)
        top[query, : len(best)] = rows[start:end][best]
    # Queries that lead to fewer go on with what is popular.
    there = np.diff(ends)
    lacking = np.flatnonzero(there < k)
    longest = int(np.diff(excluded.offsets).max(initial=0)) if excluded else 0
    enough = popular[: k + longest + k]  # whatever is excluded or there already
    others, popular_rows = np.repeat(lacking, len(enough)), np.tile(enough, len(lacking))
    of_lacking = (there < k)[queries]
    new = ~np.isin(others * size + popular_rows, queries[of_lacking] * size + rows[of_lacking])
    new &= ~_listed(others, popular_rows, excluded, size)
    others, popular_rows = others[new], popular_rows[new]
    column = there[others] + np.arange(len(others)) - np.searchsorted(others, others)
    top[others[column < k], column[column < k]] = popular_rows[column < k]
    return top


def _greatest(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Where the k greatest are, or all if there are fewer; the greatest first."""
    found = np.argpartition(-keys, k)[:k] if len(keys) > k else np.arange(len(keys))
    ordered: NDArray[np.int64] = found[np.argsort(-keys[found])]
    return ordered


def _entries(scores: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """[entries] query, row and score of what is not 0."""
    queries = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    return queries, scores.indices.astype(np.int64), scores.data


def _listed(
    queries: NDArray[np.int64], rows: NDArray[np.int64], excluded: Excluded | None, size: int
) -> NDArray[np.bool_]:
    """[entries], whether a query's item is excluded."""
    if excluded is None:
        return np.zeros(len(rows), bool)
    of_excluded = np.repeat(np.arange(len(excluded.offsets) - 1), np.diff(excluded.offsets))
    return np.isin(queries * size + rows, of_excluded * size + excluded.rows)
