"""The contribution of a ranked interaction to each metric (`components.evaluator.names`), and means with their errors.

All metrics but coverage are means. Recall over the set of a query's true items and NDCG are means over queries, but sums over
interactions too: each of a query's true items contributes its share. So every metric of every slice comes from sums, which add up
in any order on any number of workers, and from which any group of queries can be left out again (`Mean`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.evaluator import expectation
from components.evaluator.names import Statistics
from components.evaluator.ranking import Ranks


def added(
    statistics: Statistics,
    ranks: Ranks,
    true_items: NDArray[np.int64],
    repeats: NDArray[np.int64],
    retrieved: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compute the contributions of interactions to the sums.

    Args:
        statistics: names the sums.
        ranks: [interactions], of their items.
        true_items: [interactions], the number of distinct items of the interaction's query.
        repeats: [interactions], how often this item occurs among the query's interactions.
        retrieved: [interactions, 4], popularity and novelty of the retrieved items, whether the retriever was asked this
            query, and its recall; if filtered search is measured, also whether it used this query, and its recalls.

    Returns:
        [interactions, columns] float64; the columns are those of `Statistics.columns`.
    """
    above, tied = ranks
    share = 1.0 / (true_items * repeats)  # of its query
    hits = [expectation.hit_probability(above, tied, k) for k in statistics.recall_at]
    gains = [
        expectation.discounted_gain(above, tied, k) / (expectation.ideal_gain(true_items, k) * repeats)
        for k in statistics.recall_at
    ]
    columns = [np.ones(len(above)), share, *hits, expectation.reciprocal_rank(above, tied)]
    columns += [*(share * hit for hit in hits), *gains, *(share * retrieved.T)]
    values = np.stack(columns, axis=1)
    return np.pad(values, ((0, 0), (0, len(statistics.columns) - values.shape[1])))  # for scorers without search


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error.

    The error is that of a jackknife that leaves out a group of users at a time (Efron & Tibshirani, "An Introduction to the
    Bootstrap", chapter 11): the interactions of one user are correlated, so they are left out together. A user's group is a
    digest of the id, so the same data gives the same interval on any number of workers.

    Attributes:
        value: the mean; NaN without interactions.
        error: its standard error; None if fewer than two groups have interactions.
        groups: the number of groups with interactions.
    """

    value: float
    error: float | None
    groups: int

    @classmethod
    def of(cls, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> "Mean":
        """Compute the mean of groups.

        Args:
            sums: [groups], of the values.
            counts: [groups], what the mean is over; 0 for an empty group.
        """
        is_counted = counts > 0
        sums, counts = sums[is_counted], counts[is_counted]
        groups = len(counts)
        if not groups:
            return cls(float("nan"), None, 0)
        value = sums.sum() / counts.sum()
        if groups < 2:
            return cls(float(value), None, groups)
        without = (sums.sum() - sums) / (counts.sum() - counts)
        variance = (groups - 1) / groups * np.square(without - without.mean()).sum()
        return cls(float(value), float(np.sqrt(variance)), groups)

    def interval(self) -> list[float | None]:
        """Return `[value, lower, upper]` of the 95 % interval by Student's t, like TFMA; the ends are None without an error."""
        if self.error is None:
            return [self.value, None, None]
        half = float(stats.t.ppf(0.975, self.groups - 1)) * self.error
        return [self.value, self.value - half, self.value + half]
