"""The metrics of a ranking (`components.evaluator.names`) in TFMA.

One computation adds up everything for all scorers; each metric is derived from it. Ranked examples are those of
`components.evaluator.ranked`. The interval of a mean is TFMA's, from a standard error that leaves groups of users out; TFMA's own
resampling takes interactions by themselves, as if those of one user were independent, and draws them anew in each process.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray
from tensorflow_model_analysis.api.types import ValueWithTDistribution
from tensorflow_model_analysis.metrics import metric_types

from components.evaluator.names import BASELINE, CANDIDATE, COOCCURRENCE, POPULARITY, QUERIES, Statistics, denominator
from components.evaluator.ranked import (
    CATALOGUE_SIZE,
    TRUE_ITEMS,
    USER_GROUP,
    USER_GROUPS,
    rank_feature,
    retrieval_feature,
    retrieved_feature,
)
from components.evaluator.statistics import Mean, added

SCORERS = (CANDIDATE, BASELINE, POPULARITY, COOCCURRENCE)
SUMS_KEY = metric_types.MetricKey(name="_sums")  # TFMA keeps what begins with an underscore to itself


class Interaction(NamedTuple):
    """What one held-out interaction adds.

    Attributes:
        values: [columns] float64, by scorer.
        retrieved: the rows of the items that its query retrieves, by scorer.
        group: of the user.
        items: the size of the catalogue.
    """

    values: dict[str, NDArray[np.float64]]
    retrieved: dict[str, NDArray[np.int64]]
    group: int
    items: int


class Sums:
    """What the interactions of a slice add up to.

    Attributes:
        values: [groups, columns] float64, by scorer.
        retrieved: [items] bool, packed, whether an item is retrieved for any query; by scorer.
        items: the size of the catalogue.
    """

    def __init__(self) -> None:
        self.values: dict[str, NDArray[np.float64]] = {}
        self.retrieved: dict[str, NDArray[np.uint8]] = {}
        self.items = 0

    def add(self, interaction: Interaction) -> None:
        """Adds an interaction."""
        self.items = interaction.items
        for scorer, values in interaction.values.items():
            if scorer not in self.values:
                self.values[scorer] = np.zeros((USER_GROUPS, len(values)))
                self.retrieved[scorer] = np.zeros(-(-self.items // 8), np.uint8)
            self.values[scorer][interaction.group] += values
            rows = interaction.retrieved[scorer]
            np.bitwise_or.at(self.retrieved[scorer], rows >> 3, (1 << (rows & 7)).astype(np.uint8))

    def merge(self, other: "Sums") -> None:
        """Adds what others have added up."""
        self.items = max(self.items, other.items)
        for scorer, values in other.values.items():
            self.values[scorer] = self.values[scorer] + values if scorer in self.values else values
            shown = other.retrieved[scorer]
            self.retrieved[scorer] = self.retrieved[scorer] | shown if scorer in self.retrieved else shown

    def coverage(self, scorer: str) -> float:
        """The share of the catalogue that is retrieved."""
        return int(np.bitwise_count(self.retrieved[scorer]).sum()) / self.items


class Add(beam.CombineFn):
    """`Interaction` to `Sums`."""

    def create_accumulator(self) -> Sums:
        """Called by Beam."""
        return Sums()

    def add_input(self, accumulator: Sums, element: Interaction) -> Sums:
        """Called by Beam."""
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        """Called by Beam."""
        merged = Sums()
        for each in accumulators:
            merged.merge(each)
        return merged

    def extract_output(self, accumulator: Sums) -> dict[metric_types.MetricKey, Sums]:
        """Called by Beam."""
        return {SUMS_KEY: accumulator}


class Measure(metric_types.Preprocessor):
    """TFMA's extracts of a ranked example to `Interaction`, once for all the slices that it is in."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self._statistics = statistics

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Interaction]:
        """Called by TFMA."""
        features = extracts[tfma.FEATURES_KEY]
        there = [scorer for scorer in SCORERS if features.get(rank_feature(scorer)) is not None]
        above, tied = np.stack([features[rank_feature(scorer)] for scorer in there], axis=1)
        true_items, repeats = (int(each) for each in features[TRUE_ITEMS])
        retrieval = np.stack([features[retrieval_feature(scorer)] for scorer in there]).astype(np.float64)
        found = added(self._statistics, above, tied, true_items, repeats, retrieval)
        yield Interaction(
            dict(zip(there, found, strict=True)),
            {scorer: np.asarray(features[retrieved_feature(scorer)], np.int64) for scorer in there},
            int(features[USER_GROUP][0]),
            int(features[CATALOGUE_SIZE][0]),
        )


class RankingMetric(tfma.metrics.Metric):
    """One of `components.evaluator.names`.

    Args:
        name: the metric's name.
        statistic: what is measured.
        statistics: the arguments of `Statistics`.
        scorer: whose ranking; empty for that of the model under evaluation.
        over: whose is taken off, on the same interactions; empty for none.
    """

    def __init__(self, name: str, statistic: str, statistics: dict[str, Any], scorer: str = "", over: str = "") -> None:
        super().__init__(_computations, name=name, statistic=statistic, statistics=statistics, scorer=scorer, over=over)


metric_types.register_metric(RankingMetric)


def _computations(
    name: str,
    statistic: str,
    statistics: dict[str, Any],
    scorer: str,
    over: str,
    model_names: list[str],
) -> list[Any]:
    measures = Statistics(**statistics)
    computations: list[Any] = [metric_types.MetricComputation([SUMS_KEY], [Measure(measures)], Add())]
    for model in model_names:
        key = metric_types.MetricKey(name=name, model_name=model)
        measured = Measured(measures, statistic, scorer or model or CANDIDATE, over)
        computations += [
            metric_types.DerivedMetricComputation([key], _Value(key, measured)),
            metric_types.CIDerivedMetricComputation([key], _Interval(key, measured)),
        ]
    return computations


class Measured(NamedTuple):
    """A statistic of a scorer, or its lead over another.

    Attributes:
        statistics: says which column is which.
        statistic: its name.
        scorer: whose.
        over: whose is taken off; empty for none.
    """

    statistics: Statistics
    statistic: str
    scorer: str
    over: str = ""

    def mean(self, sums: Sums, over: str = "") -> Mean:
        """The mean over the slice, or, of what two scorers differ by on each interaction, the mean of that."""
        columns = self.statistics.columns
        over = over or self.over
        values = sums.values[self.scorer]
        number = columns.index(self.statistic)
        total = values[:, number] - (sums.values[over][:, number] if over else 0.0)
        return Mean.of(total, values[:, columns.index(denominator(self.statistic))])

    def value(self, sums: Sums) -> float:
        """The statistic's value."""
        if self.statistic == self.statistics.coverage:
            return sums.coverage(self.scorer)
        if self.statistic == QUERIES:
            return float(sums.values[self.scorer][:, self.statistics.columns.index(QUERIES)].sum())
        return self.mean(sums).value


class _Value:
    """The value of a metric."""

    def __init__(self, key: metric_types.MetricKey, measured: Measured) -> None:
        self._key = key
        self._measured = measured

    def __call__(self, metrics: Mapping[Any, Any]) -> dict[Any, float]:
        return {self._key: self._measured.value(metrics[SUMS_KEY])}


class _Interval:
    """The interval of a metric, and of how far it is from the last blessed model's, once TFMA has their values.

    Coverage and the number of queries are no means and have none.
    """

    def __init__(self, key: metric_types.MetricKey, measured: Measured) -> None:
        self._key = key
        self._measured = measured

    def __call__(self, metrics: Mapping[Any, Any]) -> dict[Any, ValueWithTDistribution]:
        measured = self._measured
        if measured.statistic in (measured.statistics.coverage, QUERIES):
            return {}
        means = {self._key: measured.mean(metrics[SUMS_KEY])}
        difference = self._key.make_diff_key()
        if difference in metrics and not measured.over:
            means[difference] = measured.mean(metrics[SUMS_KEY], over=BASELINE)
        return {
            key: ValueWithTDistribution(
                sample_mean=mean.value,
                sample_standard_deviation=mean.error,
                sample_degrees_of_freedom=mean.groups - 1,
                unsampled_value=mean.value,
            )
            for key, mean in means.items()
            if mean.error is not None
        }
