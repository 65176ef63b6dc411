"""Recall@K against the whole catalogue, as TFMA metrics over ranked examples.

Each ranked example holds, for every scorer, `[above, tied]` (see `components.evaluator.ranking.Ranks`) in a feature
named by `rank_feature`. Models' ranks reach TFMA as their predictions, other scorers' as features.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util

from components.evaluator.ranking import hit_probability

CANDIDATE = "candidate"
BASELINE = "baseline"
POPULARITY = "popularity"


def rank_feature(scorer: str) -> str:
    """The feature of a ranked example that holds a scorer's `[above, tied]`."""
    return f"rank_by_{scorer}"


class RecallAtK(tfma.metrics.Metric):
    """The share of held-out interactions whose item is among the first k of the whole catalogue.

    Args:
        k: how many items are retrieved.
        scorer: whose ranks; empty for those of the model under evaluation.
        name: the metric's name.
    """

    def __init__(self, k: int, name: str, scorer: str = "") -> None:
        super().__init__(metric_util.merge_per_key_computations(_recall), name=name, k=k, scorer=scorer)


class RecallGainAtK(tfma.metrics.Metric):
    """Recall@k of the model under evaluation minus that of another scorer on the same interactions.

    Args:
        k: how many items are retrieved.
        over: the other scorer.
        name: the metric's name.
    """

    def __init__(self, k: int, name: str, over: str) -> None:
        super().__init__(metric_util.merge_per_key_computations(_recall_gain), name=name, k=k, over=over)


tfma.metrics.metric_types.register_metric(RecallAtK)
tfma.metrics.metric_types.register_metric(RecallGainAtK)


def _recall(k: int, scorer: str, name: str = "", model_name: str = "") -> list[Any]:
    return _mean_computation(name, model_name, k, plus=scorer, minus=None)


def _recall_gain(k: int, over: str, name: str = "", model_name: str = "") -> list[Any]:
    return _mean_computation(name, model_name, k, plus="", minus=over)


def _mean_computation(name: str, model_name: str, k: int, plus: str, minus: str | None) -> list[Any]:
    key = metric_types.MetricKey(name=name, model_name=model_name)
    features: dict[str, dict[str, str]] = {rank_feature(scorer): {} for scorer in (plus, minus) if scorer}
    inputs = metric_types.StandardMetricInputsPreprocessor(include_filter={tfma.FEATURES_KEY: features})
    combiner = _MeanHits(key, k, plus, minus)
    return [metric_types.MetricComputation(keys=[key], preprocessors=[inputs], combiner=combiner)]


class _MeanHits(beam.CombineFn):
    """Accumulates (sum, count) of the hit probability of `plus`, less that of `minus` where there is one."""

    def __init__(self, key: Any, k: int, plus: str, minus: str | None) -> None:
        self._key = key
        self._k = k
        self._plus = plus
        self._minus = minus

    def create_accumulator(self) -> tuple[float, int]:
        return 0.0, 0

    def add_input(self, accumulator: tuple[float, int], element: Any) -> tuple[float, int]:
        value = self._hit(element, self._plus)
        if self._minus:
            value -= self._hit(element, self._minus)
        return accumulator[0] + value, accumulator[1] + 1

    def merge_accumulators(self, accumulators: Iterable[tuple[float, int]]) -> tuple[float, int]:
        totals, counts = zip(*accumulators, strict=True)
        return sum(totals), sum(counts)

    def extract_output(self, accumulator: tuple[float, int]) -> dict[Any, float]:
        total, count = accumulator
        return {self._key: total / count if count else float("nan")}

    def _hit(self, element: Any, scorer: str) -> float:
        if scorer:
            ranks = element.features[rank_feature(scorer)]
        else:
            ranks = element.get_predictions(self._key.model_name)
        above, tied = np.asarray(ranks, np.float64).reshape(-1)
        return hit_probability(above, tied, self._k)
