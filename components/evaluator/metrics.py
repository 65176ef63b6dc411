"""The metrics of a ranking (`components.evaluator.names`) in TFMA.

One computation adds up everything for all scorers; each metric is derived from it. The examples are the sums of
`components.evaluator.ranked`. The interval of a mean is TFMA's, from a standard error that leaves groups of users out; TFMA's own
resampling takes interactions by themselves, as if those of one user were independent, and draws them anew in each process.
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

SUMS_KEY = metric_types.MetricKey(name="_sums")  # TFMA keeps what begins with an underscore to itself


class Cell(NamedTuple):
    """What an example of sums says.

    Attributes:
        values: [columns] float64, by scorer.
        retrieved: the rows of the items that its queries retrieve, by scorer.
        group: of the users.
        items: the size of the catalogue.
    """

    values: dict[str, NDArray[np.float64]]
    retrieved: dict[str, NDArray[np.int64]]
    group: int
    items: int


class Add(beam.CombineFn):
    """`Cell` to `Sums`."""

    def create_accumulator(self) -> Sums:
        """Called by Beam."""
        return Sums()

    def add_input(self, accumulator: Sums, element: Cell) -> Sums:
        """Called by Beam."""
        for scorer, values in element.values.items():
            accumulator.add(scorer, element.group, values)
            accumulator.add_retrieved(scorer, element.retrieved[scorer], element.items)
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


class ReadCell(metric_types.Preprocessor):
    """TFMA's extracts of an example of sums to `Cell`, once for all the slices that it is in."""

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Cell]:
        """Called by TFMA."""
        features = extracts[tfma.FEATURES_KEY]
        written = {scorer: features.get(sums_feature(scorer)) for scorer in SCORERS}
        values = {
            scorer: np.frombuffer(each[0], "<f8") for scorer, each in written.items() if each is not None and len(each)
        }
        retrieved = {scorer: features.get(retrieved_feature(scorer)) for scorer in values}
        yield Cell(
            values,
            {name: np.asarray([] if rows is None else rows, np.int64) for name, rows in retrieved.items()},
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
        beat: the baselines that the strongest is one of.
        beyond_noise: which of the limits of change are missed beyond their noise only, each a slice and the change that is allowed;
            what is measured does not depend on it.
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
    """The value of a metric."""

    def __init__(self, key: metric_types.MetricKey, measured: Measured) -> None:
        self._key = key
        self._measured = measured

    def __call__(self, metrics: Mapping[Any, Any]) -> dict[Any, float]:
        return {self._key: self._measured.value(metrics[SUMS_KEY])}


class _Interval:
    """The interval of a metric, and of how far it is from the last blessed model's, once TFMA has their values.

    Coverage and the numbers of interactions and of queries are not means and have none.
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
