"""What TFMA is asked for: the metrics of the Ranker's sums, and the limits for a blessing."""

import json
from dataclasses import asdict
from typing import Any

import tensorflow_model_analysis as tfma

from components.evaluator import names, slices
from components.evaluator.evaluation import slice_words
from components.evaluator.metrics import RankingMetric
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    BASELINES,
    CANDIDATE,
    COOCCURRENCE,
    INTERACTIONS,
    ITEM_AGE,
    QUERIES,
    SIMILAR_ITEMS,
    SKEWED,
    STRONGEST,
    gain_name,
)
from components.evaluator.ranked import sums_feature
from components.evaluator.settings import EvaluatorSettings, Limit
from components.evaluator.sums import pairs_of_new_items


def eval_config(settings: EvaluatorSettings, has_history: bool) -> tfma.EvalConfig:
    """Configure TFMA: the metrics of the Ranker's sums, and the limits for a blessing.

    Args:
        settings: the metrics and limits.
        has_history: whether queries have a history, which co-occurrence and similar items need.
    """
    statistics = settings.statistics
    others = [name for name in BASELINES if has_history or name != COOCCURRENCE]
    both, candidate_only = tfma.MetricsSpec(), tfma.MetricsSpec(model_names=[CANDIDATE])
    for name in (*statistics.by_interaction, *statistics.by_query, statistics.coverage):
        both.metrics.append(_metric(settings, name))
        candidate_only.metrics.extend(_metric(settings, name, scorer=baseline) for baseline in others)
    both.metrics.extend(
        _metric(settings, name, over=baseline) for name in statistics.recalls for baseline in (*others, STRONGEST)
    )
    candidate_only.metrics.extend(_metric(settings, name) for name in statistics.searched)
    candidate_only.metrics.extend(_metric(settings, name) for name in (INTERACTIONS, QUERIES))
    aside = [*SKEWED, *([SIMILAR_ITEMS] if has_history else [])]
    candidate_only.metrics.extend(_metric(settings, name, scorer=s) for s in aside for name in statistics.recalls)
    candidate_only.metrics.extend(_metric(settings, *pair) for pair in pairs_of_new_items(statistics))
    sliced = [*names.SLICES, *settings.slices]
    crossed = {tuple(wanted) for limit in settings.limits if len(wanted := _of_interactions(limit)) > 1}
    # Without a baseline, TFX drops it and the comparisons with it.
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                name=name,
                model_type=tfma.constants.MATERIALIZED_PREDICTION,
                prediction_key=sums_feature(name),
                is_baseline=name == BASELINE,
            )
            for name in (CANDIDATE, BASELINE)
        ],
        slicing_specs=[
            tfma.SlicingSpec(feature_keys=[slices.feature(name) for name in slicing])
            for slicing in ((), *((name,) for name in sliced), *sorted(crossed))
        ],
        metrics_specs=[both, candidate_only],
    )


def limits(settings: EvaluatorSettings) -> tuple[Limit, ...]:
    """List all limits, including the default ones of the configuration."""
    defaults = [Limit(metric=settings.statistics.index_recall, at_least=settings.minimum_index_recall)]
    if settings.below_popularity == "refuse":
        defaults += [Limit(metric=gain_name(name, STRONGEST), at_least=0.0) for name in settings.statistics.recalls]
    if settings.below_last_blessed == "refuse":
        defaults += [Limit(metric=name, fall_at_most=0.0, beyond_noise=True) for name in settings.statistics.recalls]
    return (*defaults, *settings.limits)


def metric_name(settings: EvaluatorSettings, statistic: str, scorer: str = "", over: str = "") -> str:
    """Return a metric's name in TFMA: the statistic, the candidate set, and the scorer unless it is the model under evaluation."""
    name = f"{statistic}_of_{settings.statistics.candidates}"
    by = f"{name}_by_{scorer}" if scorer else name
    return gain_name(by, over) if over else by


def _metric(settings: EvaluatorSettings, statistic: str, scorer: str = "", over: str = "") -> tfma.MetricConfig:
    """Configure a metric, named by the candidate set, with its limits from the settings."""
    arguments: dict[str, Any] = {
        "name": metric_name(settings, statistic, scorer, over),
        "statistic": statistic,
        "statistics": asdict(settings.statistics),
        "scorer": scorer,
        "over": over,
        "beat": settings.beat if over == STRONGEST else (),
    }
    of_limits = gain_name(statistic, over) if over else statistic
    applicable = [
        limit
        for limit in limits(settings)
        if limit.metric == of_limits and scorer == (AS_NEW if limit.of_new_items else "")
    ]
    # A limit with `beyond_noise` is dropped if an equal one without it exists.
    places = [(slice_words(limit.slice), _change_allowed(limit)) for limit in applicable]
    strict = [place for place, limit in zip(places, applicable, strict=True) if not limit.beyond_noise]
    arguments["beyond_noise"] = [place for place in places if place not in strict]
    metric = tfma.MetricConfig(
        class_name=RankingMetric.__name__, module=RankingMetric.__module__, config=json.dumps(arguments)
    )
    for limit in applicable:
        # A limit without a slice would apply to each slice; it is given the slice of all interactions, which names nothing.
        values = {slices.feature(name): value for name, value in _of_interactions(limit).items()}
        metric.per_slice_thresholds.add(
            slicing_specs=[tfma.SlicingSpec(feature_values=values)], threshold=_threshold(limit)
        )
    return metric


def _change_allowed(limit: Limit) -> float | None:
    """Return the allowed change of a limit, signed."""
    return limit.rise_at_most if limit.fall_at_most is None else -limit.fall_at_most


def _of_interactions(limit: Limit) -> dict[str, str]:
    """Return a limit's slice of the interactions."""
    return {name: value for name, value in limit.slice.items() if not (limit.of_new_items and name == ITEM_AGE)}


def _threshold(limit: Limit) -> tfma.MetricThreshold:
    """Convert a limit to TFMA's form."""
    threshold = tfma.MetricThreshold()
    if limit.at_least is not None:
        threshold.value_threshold.lower_bound.value = limit.at_least
    if limit.at_most is not None:
        threshold.value_threshold.upper_bound.value = limit.at_most
    if (allowed := _change_allowed(limit)) is not None:
        better = "HIGHER_IS_BETTER" if limit.rise_at_most is None else "LOWER_IS_BETTER"
        threshold.change_threshold.direction = getattr(tfma.MetricDirection, better)
        threshold.change_threshold.absolute.value = allowed
    return threshold
