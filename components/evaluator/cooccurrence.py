"""The item-to-item baseline: what was chosen by those who had seen what the query's history has."""

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
    histories: Excluded,
    neighbours: Neighbours,
    popularity: NDArray[np.int64],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
) -> Ranks:
    """Ranks each query's true item by what its history leads to; items that it leads to alike, or not at all, by popularity.

    Args:
        histories: the rows of each query's history.
        neighbours: what they lead to.
        popularity: [items] interactions.
        true_rows: [queries], the row of each query's true item.
        excluded: items that are not ranked.
    """
    queries, rows, scores = _entries(neighbours.scores(histories))
    size = len(popularity)
    is_true = rows == true_rows[queries]
    true_scores = np.bincount(queries[is_true], scores[is_true], minlength=len(true_rows))
    counted = ~is_true & ~_listed(queries, rows, excluded, size)
    queries, rows, scores = queries[counted], rows[counted], scores[counted]
    lead = scores - true_scores[queries]
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
    histories: Excluded,
    neighbours: Neighbours,
    popularity: NDArray[np.int64],
    k: int,
    excluded: Excluded | None = None,
) -> NDArray[np.int64]:
    """The first k items of each query.

    Args:
        histories: the rows of each query's history; with empty ones these are the most popular items.
        neighbours: what they lead to.
        popularity: [items] interactions.
        k: how many.
        excluded: items that are not retrieved.

    Returns:
        [queries, k] int64 rows, the best first, of those that are equal the first; -1 where there are no more.
    """
    number = len(histories.offsets) - 1
    longest = int(np.diff(excluded.offsets).max(initial=0)) if excluded else 0
    popular = np.argsort(-popularity, kind="stable")[: k + longest + k]  # enough, whatever else was retrieved
    of_scores = _entries(neighbours.scores(histories))
    queries = np.concatenate([of_scores[0], np.repeat(np.arange(number), len(popular))])
    rows = np.concatenate([of_scores[1], np.tile(popular, number)])
    scores = np.concatenate([of_scores[2], np.zeros(number * len(popular), np.int64)])
    kept = ~_listed(queries, rows, excluded, len(popularity))
    queries, rows, scores = queries[kept], rows[kept], scores[kept]
    order = np.lexsort((rows, -popularity[rows], -scores, queries))
    queries, rows = queries[order], rows[order]
    _, first = np.unique(queries * len(popularity) + rows, return_index=True)  # a popular item may be led to as well
    first = np.sort(first)
    queries, rows = queries[first], rows[first]
    place = np.arange(len(queries)) - np.searchsorted(queries, queries)
    top = np.full((number, k), -1)
    top[queries[place < k], place[place < k]] = rows[place < k]
    return top


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
