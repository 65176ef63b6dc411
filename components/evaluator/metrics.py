"""The metrics of a ranking (`components.evaluator.names`) in TFMA.

One computation adds up everything for all scorers; each metric is derived from it. The examples are the sums of
`components.evaluator.ranked`. The interval of a mean is TFMA's, from a standard error that leaves groups of users out; TFMA's own
resampling treats a user's interactions as independent, and draws differently in each process.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray
from tensorflow_model_analysis.api.types import ValueWithTDistribution
from tensorflow_model_analysis.metrics import metric_types

from components.evaluator.names import BASELINE, CANDIDATE, INTERACTIONS, QUERIES, SCORERS, Statistics
from components.evaluator.ranked import CATALOGUE_SIZE, USER_GROUP, retrieved_feature, sums_feature
from components.evaluator.sums import Measured, Sums

SUMS_KEY = metric_types.MetricKey(name="_sums")  # TFMA does not output names that begin with an underscore


class Cell(NamedTuple):
    """The content of an example of sums.

    Attributes:
        values: [columns] float64, by scorer.
        retrieved: the rows of the items that its queries retrieve, by scorer.
        group: the group of users.
        items: the size of the catalogue.
    """

    values: dict[str, NDArray[np.float64]]
    retrieved: dict[str, NDArray[np.int64]]
    group: int
    items: int


class Add(beam.CombineFn):
    """Adds up `Cell`s to `Sums`."""

    def create_accumulator(self) -> Sums:
        """Override of Beam's method."""
        return Sums()

    def add_input(self, accumulator: Sums, element: Cell) -> Sums:
        """Override of Beam's method."""
        for scorer, values in element.values.items():
            accumulator.add(scorer, element.group, values)
            accumulator.add_retrieved(scorer, element.retrieved[scorer], element.items)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        """Override of Beam's method."""
        merged = Sums()
        for sums in accumulators:
            merged.merge(sums)
        return merged

    def extract_output(self, accumulator: Sums) -> dict[metric_types.MetricKey, Sums]:
        """Override of Beam's method."""
        return {SUMS_KEY: accumulator}


class ReadCell(metric_types.Preprocessor):
    """Converts TFMA's extracts of an example of sums to a `Cell`, once for all its slices."""

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Cell]:
        """Override of TFMA's method."""
        features = extracts[tfma.FEATURES_KEY]
        written = {scorer: features.get(sums_feature(scorer)) for scorer in SCORERS}
        values = {
            scorer: np.frombuffer(encoded[0], "<f8")
            for scorer, encoded in written.items()
            if encoded is not None and len(encoded)
        }
        retrieved = {scorer: features.get(retrieved_feature(scorer)) for scorer in values}
        yield Cell(
            values,
            {name: np.asarray([] if rows is None else rows, np.int64) for name, rows in retrieved.items()},
            int(features[USER_GROUP][0]),
            int(features[CATALOGUE_SIZE][0]),
        )


class RankingMetric(tfma.metrics.Metric):
    """A metric of `components.evaluator.names`.

    Args:
        name: the metric's name.
        statistic: the statistic to measure.
        statistics: the arguments of `Statistics`.
        scorer: the scorer to measure; empty for the model under evaluation.
        over: the scorer to subtract, on the same interactions; empty for none.
        beat: the baselines that the strongest is one of.
        beyond_noise: the change limits that are missed only beyond noise, each a slice and the allowed change;
            does not affect the measurement.
    """

    def __init__(
        self,
        name: str,
        statistic: str,
        statistics: dict[str, Any],
        scorer: str = "",
        over: str = "",
        beat: Sequence[str] = (),
        beyond_noise: Sequence[tuple[str, float]] = (),
    ) -> None:
        super().__init__(
            _computations,
            name=name,
            statistic=statistic,
            statistics=statistics,
            scorer=scorer,
            over=over,
            beat=list(beat),
        )


metric_types.register_metric(RankingMetric)


def _computations(
    name: str,
    statistic: str,
    statistics: dict[str, Any],
    scorer: str,
    over: str,
    beat: list[str],
    model_names: list[str],
) -> list[Any]:
    measures = Statistics(**statistics)
    computations: list[Any] = [metric_types.MetricComputation([SUMS_KEY], [ReadCell()], Add())]
    for model in model_names:
        key = metric_types.MetricKey(name=name, model_name=model)
        measured = Measured(measures, statistic, scorer or model or CANDIDATE, over, tuple(beat))
        computations += [
            metric_types.DerivedMetricComputation([key], _Value(key, measured)),
            metric_types.CIDerivedMetricComputation([key], _Interval(key, measured)),
        ]
    return computations


class _Value:
    """Computes the value of a metric."""

    def __init__(self, key: metric_types.MetricKey, measured: Measured) -> None:
        self._key = key
        self._measured = measured

    def __call__(self, metrics: Mapping[Any, Any]) -> dict[Any, float]:
        return {self._key: self._measured.value(metrics[SUMS_KEY])}


class _Interval:
    """Computes the interval of a metric, and of its change from the last blessed model's, from TFMA's values.

    Coverage and the numbers of interactions and of queries are not means and have no interval.
    """

    def __init__(self, key: metric_types.MetricKey, measured: Measured) -> None:
        self._key = key
        self._measured = measured

    def __call__(self, metrics: Mapping[Any, Any]) -> dict[Any, ValueWithTDistribution]:
        measured = self._measured
        if measured.statistic in (measured.statistics.coverage, INTERACTIONS, QUERIES):
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
