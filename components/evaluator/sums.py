"""Sums over interactions, by scorer and group of users, and the metrics (`components.evaluator.names`) computed from them.

TFMA's evaluation of the candidate and the evaluation by the next day both use this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.evaluator.names import (
    ALL,
    AS_NEW,
    BASELINE,
    BASELINES,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    INTERACTIONS,
    OF_NEW_ITEMS,
    QUERIES,
    SKEWED,
    STRONGEST,
    Statistics,
    denominator,
    gain_name,
)
from components.evaluator.ranked import USER_GROUPS
from components.evaluator.statistics import Mean

Interval = list[float | None]
"""`[value, lower, upper]`; the ends of the 95 % interval, None without one."""


class Sums:
    """The sums of a slice's interactions.

    Attributes:
        values: [groups, columns] float64, by scorer; without scorers that ranked none of the interactions.
        retrieved: [items] bool, packed, whether an item is retrieved for any query; by scorer. Empty if not measured.
        items: the size of the catalogue.
    """

    def __init__(self) -> None:
        self.values: dict[str, NDArray[np.float64]] = {}
        self.retrieved: dict[str, NDArray[np.uint8]] = {}
        self.items = 0

    def add(self, scorer: str, group: int, values: NDArray[np.float64]) -> None:
        """Add the sums of interactions of a group of users, [columns]; ignores a scorer that ranked none of them."""
        if not values[0]:
            return
        if scorer not in self.values:
            self.values[scorer] = np.zeros((USER_GROUPS, len(values)))
        self.values[scorer][group] += values

    def add_retrieved(self, scorer: str, rows: NDArray[np.int64], items: int) -> None:
        """Record the catalogue rows that were retrieved."""
        self.items = items
        if scorer not in self.retrieved:
            self.retrieved[scorer] = np.zeros(-(-items // 8), np.uint8)
        np.bitwise_or.at(self.retrieved[scorer], rows >> 3, (1 << (rows & 7)).astype(np.uint8))

    def merge(self, other: "Sums") -> None:
        """Add other sums."""
        self.items = max(self.items, other.items)
        for scorer, values in other.values.items():
            self.values[scorer] = self.values[scorer] + values if scorer in self.values else values
        for scorer, shown in other.retrieved.items():
            self.retrieved[scorer] = self.retrieved[scorer] | shown if scorer in self.retrieved else shown

    def coverage(self, scorer: str) -> float:
        """Return the share of the catalogue that is retrieved."""
        return int(np.bitwise_count(self.retrieved[scorer]).sum()) / self.items


class Measured(NamedTuple):
    """A statistic of a scorer, or its difference from another's.

    Attributes:
        statistics: names the columns.
        statistic: its name.
        scorer: the scorer.
        over: the scorer to subtract; empty for none. `STRONGEST` is the one in `beat` with the greatest value.
        beat: the baselines that `STRONGEST` is one of.
    """

    statistics: Statistics
    statistic: str
    scorer: str
    over: str = ""
    beat: tuple[str, ...] = ()

    def mean(self, sums: Sums, over: str = "") -> Mean:
        """Return the mean over the slice, or the mean of the differences of two scorers on each interaction."""
        over = over or self.over
        if over == STRONGEST:
            # The first among equals.
            over = max(self.beat, key=lambda name: self._replace(scorer=name, over="").mean(sums).value)
        nothing = np.zeros((USER_GROUPS, len(self.statistics.columns)))
        columns = self.statistics.columns
        values = sums.values.get(self.scorer, nothing)
        number = columns.index(self.statistic)
        total = values[:, number] - (sums.values.get(over, nothing)[:, number] if over else 0.0)
        return Mean.of(total, values[:, columns.index(denominator(self.statistic))])

    def value(self, sums: Sums) -> float:
        """Return the statistic's value; NaN if the scorer ranked nothing."""
        if self.statistic == self.statistics.coverage:
            return sums.coverage(self.scorer)
        if self.statistic in (INTERACTIONS, QUERIES):
            values = sums.values.get(self.scorer)
            return 0.0 if values is None else float(values[:, self.statistics.columns.index(self.statistic)].sum())
        return self.mean(sums).value


def pairs_of_new_items(statistics: Statistics) -> list[tuple[str, str, str]]:
    """List the statistics of items as new: statistic, scorer, and the scorer to subtract (or empty)."""
    of_each = [(name, scorer, "") for scorer in OF_NEW_ITEMS for name in (INTERACTIONS, *statistics.by_interaction)]
    return [*of_each, *((name, AS_NEW, CONTENT_NEIGHBOURS) for name in statistics.by_interaction)]


def report(statistics: Statistics, by_slice: Mapping[str, Sums], beat: Sequence[str]) -> dict[str, Any]:
    """Compute the metrics of ranks, as `components.evaluator.evaluation.read_metrics` returns them.

    Args:
        statistics: names the metrics; those of retrieval are left out.
        by_slice: the sums of each slice; `ALL` for all interactions.
        beat: the baselines that the strongest is one of.
    """
    metrics: dict[str, Any] = {}
    for name, sums in by_slice.items():
        of_slice: dict[str, Any] = {
            number: round(Measured(statistics, number, CANDIDATE).value(sums)) for number in (INTERACTIONS, QUERIES)
        }
        if name == ALL:
            of_slice["candidates"] = statistics.candidates
        baselines = [scorer for scorer in BASELINES if scorer in sums.values]
        measured = [
            (statistic, scorer, "") for scorer in (CANDIDATE, BASELINE, *baselines) for statistic in statistics.ranked
        ]
        measured += [
            (statistic, scorer, over)
            for scorer in (CANDIDATE, BASELINE)
            for statistic in statistics.recalls
            for over in (*baselines, STRONGEST)
        ]
        measured += [(statistic, scorer, "") for scorer in SKEWED for statistic in statistics.recalls]
        measured += pairs_of_new_items(statistics)
        for statistic, scorer, over in measured:
            if scorer in sums.values:
                described = Measured(statistics, statistic, scorer, over, tuple(beat))
                key = gain_name(statistic, over) if over else statistic
                of_slice.setdefault(scorer, {})[key] = interval(described, sums)
        if BASELINE in sums.values:
            of_slice["change"] = {
                statistic: Measured(statistics, statistic, CANDIDATE).mean(sums, over=BASELINE).interval()
                for statistic in statistics.ranked
            }
        metrics[name] = of_slice
    return metrics


def interval(measured: Measured, sums: Sums) -> Interval:
    """Return a statistic with its 95 % interval."""
    if measured.statistic == INTERACTIONS:
        return [measured.value(sums), None, None]
    ends = measured.mean(sums).interval()
    return ends if measured.over else within_a_share(ends)


def within_a_share(interval: Interval) -> Interval:
    """Clip the interval of a share to [0, 1]."""
    value, lower, upper = interval
    return [value, None if lower is None else max(lower, 0.0), None if upper is None else min(upper, 1.0)]
