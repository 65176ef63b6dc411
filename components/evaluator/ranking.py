"""Exact ranks of true items among the whole catalogue, by blocked matrix products."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TIE = 1e-6
"""Scores of unit vectors (in [-1, 1]) this close count as equal. Sums of 64 float32 products differ in their last bits
with the order of summation, so the same item scored in two blocks must not beat itself."""

BLOCK_ITEMS = 8192


class Ranks(NamedTuple):
    """Where true items stand, without pretending to order equal scores.

    Attributes:
        above: [queries] int64, items that score higher than the true one.
        tied: [queries] int64, other items that score the same.
    """

    above: NDArray[np.int64]
    tied: NDArray[np.int64]


def rank_by_embedding(queries: NDArray[np.float32], items: NDArray[np.float32], true_rows: NDArray[np.int64]) -> Ranks:
    """Ranks each query's true item by inner product.

    Args:
        queries: [queries, width], L2-normalised.
        items: [items, width], L2-normalised, the whole catalogue.
        true_rows: [queries], the row of each query's true item in `items`.
    """
    true_scores = np.einsum("qw,qw->q", queries, items[true_rows])[:, np.newaxis]
    above = np.zeros(len(queries), np.int64)
    tied = np.zeros(len(queries), np.int64)
    for start in range(0, len(items), BLOCK_ITEMS):
        lead = queries @ items[start : start + BLOCK_ITEMS].T - true_scores
        block_above = np.count_nonzero(lead > TIE, axis=1)
        above += block_above
        tied += np.count_nonzero(lead >= -TIE, axis=1) - block_above
    return Ranks(above, tied - 1)  # the true item ties with itself


def rank_by_score(scores: NDArray[np.float64], true_rows: NDArray[np.int64]) -> Ranks:
    """Ranks each query's true item by a score that is the same for every query, such as popularity.

    Args:
        scores: [items], the whole catalogue.
        true_rows: [queries], the row of each query's true item in `scores`.
    """
    ascending = np.sort(scores)
    first = np.searchsorted(ascending, scores[true_rows], side="left")
    after = np.searchsorted(ascending, scores[true_rows], side="right")
    return Ranks((len(scores) - after).astype(np.int64), (after - first - 1).astype(np.int64))


def hit_probability(above: float, tied: float, k: int) -> float:
    """The chance that the true item is among the first k when equal scores are ordered at random.

    A tie can therefore never flatter: a model that scores every item alike hits with k / items.
    """
    return float(np.clip((k - above) / (tied + 1), 0.0, 1.0))
