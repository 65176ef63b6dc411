"""The item-to-item baseline: items taken by users whose histories contain items of the query's history."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from components import ragged
from components.evaluator.query_items import Excluded

ONE = 1 << 20
"""Shares and weights are whole numbers: their sums do not depend on the order, so that equal scores are equal."""
NEWEST = 1 << 8
FADES = 0.9
"""The weight of a history's item, as a factor of the next newer one's; chosen by `benchmarks.cooccurrence` on MovieLens."""


class Neighbours(NamedTuple):
    """The items that co-occur with items of a history.

    Attributes:
        weights: [items, items] int64: how often the column's item was taken with the row's in the history, divided by the geometric
            mean of how often any item was and how often the column's item was at all (the cosine of Sarwar et al., WWW 2001).
    """

    weights: sparse.csr_array

    @classmethod
    def build(
        cls, counts: sparse.csr_array, totals: NDArray[np.int64], popularity: NDArray[np.int64], most: int
    ) -> "Neighbours":
        """Build the weights from pair counts.

        Args:
            counts: [items, items] int64, how often the column's item was taken with the row's in the history.
            totals: [items] int64, how often any item was.
            popularity: [items] int64, how often the item was taken at all.
            most: how many targets to keep of each source, those with the greatest counts; the first among equals.
        """
        counts.sort_indices()
        lengths = np.diff(counts.indptr)
        is_kept = np.ones(len(counts.data), bool)
        for source in np.flatnonzero(lengths > most).tolist():
            start, end = counts.indptr[source : source + 2]
            is_kept[start:end] = _greatest(counts.data[start:end], most)
        sources = np.repeat(np.arange(len(lengths)), lengths)[is_kept]
        targets = counts.indices[is_kept]
        means = np.sqrt(np.maximum(totals, 1))[sources] * np.sqrt(np.maximum(popularity, 1))[targets]
        weights = np.rint(ONE * (counts.data[is_kept] / means)).astype(np.int64)
        offsets = ragged.offsets(np.bincount(sources, minlength=len(lengths)))
        return cls(sparse.csr_array((weights, targets, offsets), shape=counts.shape))

    def scores(self, histories: Excluded, fades: float = FADES) -> sparse.csr_array:
        """Score [queries, items] int64: the weights of an item, summed over the items of the history.

        Args:
            histories: the rows of each query's history, oldest first; repeated items count each time.
            fades: the weight of an item, as a factor of the next newer one's.
        """
        weights = np.rint(NEWEST * weights_by_age(histories, fades)).astype(np.int64)
        shape = (len(histories.offsets) - 1, self.weights.shape[0])
        seen = sparse.csr_array((weights, histories.rows, histories.offsets), shape=shape)
        return seen @ self.weights


def weights_by_age(histories: Excluded, fades: float = FADES) -> NDArray[np.float64]:
    """Return the weight of each item of the histories, which are oldest first: 1 for the newest."""
    lengths = np.diff(histories.offsets)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.rows))
    return np.power(fades, age, dtype=np.float64)


def _greatest(counts: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Mark the greatest counts; the first among those tied with the last."""
    least = np.partition(counts, len(counts) - most)[len(counts) - most]
    is_greatest = counts > least
    level = np.flatnonzero(counts == least)
    is_greatest[level[: most - is_greatest.sum()]] = True
    return is_greatest
