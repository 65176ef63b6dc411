"""Expected values of rank metrics when items with equal scores are ordered at random.

The true item ranks after `above` others and is tied with `tied` more: it is at each of the ranks above + 1 to above + tied + 1
with the same probability. So ties cannot flatter: a model that gives all items the same score gets what chance gives. The functions
take numbers, or arrays [queries] of them, and need no more memory than these, whatever the number of ties.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma


def hit_probability(above: ArrayLike, tied: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return the probability of being among the first k; k / items for a model that gives all items the same score."""
    return np.clip((k - np.asarray(above)) / (np.asarray(tied) + 1.0), 0.0, 1.0)


def reciprocal_rank(above: ArrayLike, tied: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of 1 / rank: a difference of harmonic numbers, which the digamma function gives for any number of ranks."""
    first = np.asarray(above, np.float64) + 1.0
    places = np.asarray(tied, np.float64) + 1.0
    alone = places == 1.0
    return np.where(alone, 1.0 / first, (digamma(first + places) - digamma(first)) / places)


def discounted_gain(above: ArrayLike, tied: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return the mean of 1 / log2(rank + 1), 0 after rank k (Järvelin & Kekäläinen, TOIS 2002)."""
    first = np.asarray(above)
    after = first + np.asarray(tied) + 1
    gained = np.concatenate([[0.0], np.cumsum(_discounts(k))])
    return (gained[np.clip(after, 0, k)] - gained[np.clip(first, 0, k)]) / (after - first)


def ideal_gain(true_items: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return the maximum gain of a query with a number of true items among the first k."""
    gained: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(_discounts(k))])
    return gained[np.minimum(k, np.asarray(true_items))]


def _discounts(places: int) -> NDArray[np.float64]:
    return 1.0 / np.log2(np.arange(places) + 2.0)
