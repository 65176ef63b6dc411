"""Means over interactions with 95 % intervals, as the Evaluator's: a jackknife that leaves out a group of users at a time."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.digests import partition_of
from components.evaluator.ranked import USER_GROUPS
from components.evaluator.statistics import Mean


class Interval(NamedTuple):
    """A mean, and the ends of its 95 % interval; NaN where all interactions are of one group of users."""

    value: float
    lower: float
    upper: float


def groups_of(users: Iterable[bytes]) -> NDArray[np.int64]:
    """Return the group of each user."""
    return np.array([partition_of(user, USER_GROUPS) for user in users], np.int64)


def interval(values: NDArray[np.float64], groups: NDArray[np.int64]) -> Interval:
    """Return the mean of values; for differences between two scorers on the same interactions it is paired.

    Args:
        values: [interactions].
        groups: [interactions], of the users.
    """
    counts = np.bincount(groups, minlength=USER_GROUPS).astype(np.float64)
    sums = np.bincount(groups, values, USER_GROUPS).astype(np.float64)
    mean = Mean.of(sums, counts)
    half = np.nan if mean.error is None else mean.error * stats.t.ppf(0.975, mean.groups - 1)
    return Interval(mean.value, mean.value - half, mean.value + half)
