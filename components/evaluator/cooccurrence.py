"""The item-to-item baseline: what was taken by those who had seen what the query's history has."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.ranking import Excluded

ONE = 1 << 20
"""Shares and weights are whole numbers: sums of them do not depend on their order, so that equal scores are equal."""
NEWEST = 1 << 8
FADES = 0.9
"""An item of a history weighs FADES times as much as the next newer one: `benchmarks.cooccurrence` on MovieLens chose it."""


class Neighbours(NamedTuple):
    """What the items of a history lead to.

    Attributes:
        weights: [items, items] int64: how often the column's item was taken with the row's in the history, over the geometric mean
            of how often anything was and how often the column's item was at all (the cosine of Sarwar et al., WWW 2001).
    """

    weights: sparse.csr_array

    @classmethod
    def build(
        cls, counts: sparse.csr_array, totals: NDArray[np.int64], popularity: NDArray[np.int64], most: int
    ) -> "Neighbours":
        """Builds the weights from pair counts.

        Args:
            counts: [items, items] int64, how often the column's item was taken with the row's in the history.
            totals: [items] int64, how often anything was.
            popularity: [items] int64, how often the item was taken at all.
            most: how many targets to keep of each source, those with the greatest counts; of equal ones the first.
        """
        counts.sort_indices()
        lengths = np.diff(counts.indptr)
        kept = np.ones(len(counts.data), bool)
        for source in np.flatnonzero(lengths > most).tolist():
            start, end = counts.indptr[source : source + 2]
            kept[start:end] = _greatest(counts.data[start:end], most)
        sources = np.repeat(np.arange(len(lengths)), lengths)[kept]
        targets = counts.indices[kept]
        means = np.sqrt(np.maximum(totals, 1))[sources] * np.sqrt(np.maximum(popularity, 1))[targets]
        weights = np.rint(ONE * (counts.data[kept] / means)).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=len(lengths)))])
        return cls(sparse.csr_array((weights, targets, offsets), shape=counts.shape))

    def scores(self, histories: Excluded, fades: float = FADES) -> sparse.csr_array:
        """[queries, items] int64: for each item the sum of the weights that the items of the history lead to it with.

        Args:
            histories: the rows of each query's history, oldest first; an item that is there twice counts twice.
            fades: what an item weighs, as a share of what the next newer one does.
        """
        weights = np.rint(NEWEST * weights_by_age(histories, fades)).astype(np.int64)
        shape = (len(histories.offsets) - 1, self.weights.shape[0])
        seen = sparse.csr_array((weights, histories.rows, histories.offsets), shape=shape)
        return seen @ self.weights


def weights_by_age(histories: Excluded, fades: float = FADES) -> NDArray[np.float64]:
    """The weight of each item of the histories, whose newest are the last: 1 for the newest."""
    lengths = np.diff(histories.offsets)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.rows))
    return np.power(fades, age, dtype=np.float64)


def _greatest(counts: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which are the greatest; of those level with the last the first."""
    least = np.partition(counts, len(counts) - most)[len(counts) - most]
    kept = counts > least
    level = np.flatnonzero(counts == least)
    kept[level[: most - kept.sum()]] = True
    return kept
