"""Limits that a model misses, in sentences, and which of them TFX would refuse a blessing for without reason."""

import math
from typing import Any

import tensorflow_model_analysis as tfma

from components.evaluator.evaluation import slice_name
from components.evaluator.names import (
    ALL,
    AS_NEW,
    FILTERED_QUERIES,
    ITEM_AGE,
    SEARCHED_QUERIES,
    denominator,
)
from components.evaluator.sums import Interval


def failures(validation: tfma.ValidationResult) -> list[tuple[Any, Any]]:
    """List the missed limits, each with its slice."""
    return [
        (of_slice, failure) for of_slice in validation.metric_validations_per_slice for failure in of_slice.failures
    ]


def is_of_nothing(failure: Any) -> bool:
    """Return whether no interaction had an item as new, or no query was searched; other metrics that are NaN miss their limit."""
    name = failure.metric_key.name
    is_of_some = name.endswith(f"_by_{AS_NEW}") or denominator(name) in (SEARCHED_QUERIES, FILTERED_QUERIES)
    return is_of_some and math.isnan(failure.metric_value.double_value.value)


def is_within_noise(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> bool:
    """Return whether a change limit has to be exceeded beyond noise, but the interval includes the allowed value."""
    if not failure.metric_key.is_diff or not _asks_for_noise(of_slice, failure, described):
        return False
    _, lower, upper = _change(of_slice, failure, metrics, described)
    if lower is None or upper is None:
        return True
    allowed = failure.metric_threshold.change_threshold
    is_fall = allowed.direction == tfma.MetricDirection.HIGHER_IS_BETTER
    return bool(upper >= allowed.absolute.value if is_fall else lower <= allowed.absolute.value)


def refusal(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> str:
    """Describe a limit that the model misses, in a sentence."""
    interval = ""
    if failure.metric_key.is_diff and _asks_for_noise(of_slice, failure, described):
        _, lower, upper = _change(of_slice, failure, metrics, described)
        interval = f" (95 %: {lower:+.4f} to {upper:+.4f})"
    return f"{failure.metric_key.name}{_where(of_slice.slice_key)}: {_limit(failure)}{interval}"


def words_of_nothing(of_slice: Any, failure: Any) -> str:
    """Name the slice in which a limit has nothing to judge."""
    name = slice_name(of_slice.slice_key)
    if not failure.metric_key.name.endswith(f"_by_{AS_NEW}"):
        return name
    return f"{ITEM_AGE}={AS_NEW}" + ("" if name == ALL else f", {name}")


def _asks_for_noise(of_slice: Any, failure: Any, described: dict[str, Any]) -> bool:
    place = [slice_name(of_slice.slice_key), failure.metric_threshold.change_threshold.absolute.value]
    return place in described[failure.metric_key.name]["beyond_noise"]


def _change(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> Interval:
    changes = metrics[slice_name(of_slice.slice_key)]["change"]
    return changes[described[failure.metric_key.name]["statistic"]]


def _where(slice_key: Any) -> str:
    name = slice_name(slice_key)
    return "" if name == ALL else f" of {name}"


def _limit(failure: Any) -> str:
    value = failure.metric_value.double_value.value
    if failure.metric_key.is_diff:
        threshold = failure.metric_threshold.change_threshold
        is_fall = threshold.direction == tfma.MetricDirection.HIGHER_IS_BETTER
        return (
            f"{abs(value):.4f} {'below' if value < 0 else 'above'} that of the last blessed model; "
            f"{abs(threshold.absolute.value):.4f} {'below' if is_fall else 'above'} is allowed"
        )
    bounds = failure.metric_threshold.value_threshold
    expected = [
        f"{words} {getattr(bounds, bound).value:.4f}"
        for words, bound in (("at least", "lower_bound"), ("at most", "upper_bound"))
        if bounds.HasField(bound)
    ]
    return f"{value:.4f}; expected {' and '.join(expected)}"
