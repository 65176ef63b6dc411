"""TFX's Evaluator over ranked examples; also writes its metrics in a form that is read without TFMA."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import tensorflow_model_analysis as tfma
from tfx.components import Evaluator
from tfx.components.evaluator import constants, executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from components import (
    beam_memory,  # noqa: F401  # which makes small pipelines cheap
    recorded,
)
from components.artifacts import Artifacts
from components.evaluator import names, slices
from components.evaluator.metrics import RankingMetric
from components.evaluator.names import (
    ALL,
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
    Statistics,
    gain_name,
)
from components.evaluator.ranked import sums_feature
from components.evaluator.settings import EvaluatorSettings, Limit
from components.evaluator.sums import Interval, pairs_of_new_items, within_a_share

METRICS_FILE = "metrics.json"


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
        candidate_only.metrics.extend(_metric(settings, name, scorer=other) for other in others)
    both.metrics.extend(
        _metric(settings, name, over=other) for name in statistics.recalls for other in (*others, STRONGEST)
    )
    candidate_only.metrics.extend(
        _metric(settings, name) for name in (statistics.index_recall, *statistics.filtered_recalls)
    )
    candidate_only.metrics.extend(_metric(settings, name) for name in (INTERACTIONS, QUERIES))
    aside = [*SKEWED, *([SIMILAR_ITEMS] if has_history else [])]
    candidate_only.metrics.extend(_metric(settings, name, scorer=s) for s in aside for name in statistics.recalls)
    candidate_only.metrics.extend(_metric(settings, *each) for each in pairs_of_new_items(statistics))
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
            tfma.SlicingSpec(feature_keys=[slices.feature(name) for name in each])
            for each in ((), *((name,) for name in sliced), *sorted(crossed))
        ],
        metrics_specs=[both, candidate_only],
    )


def limits(settings: EvaluatorSettings) -> tuple[Limit, ...]:
    """List all limits, including the default ones of the configuration."""
    own = [Limit(metric=settings.statistics.index_recall, at_least=settings.minimum_index_recall)]
    if settings.below_popularity == "refuse":
        own += [Limit(metric=gain_name(name, STRONGEST), at_least=0.0) for name in settings.statistics.recalls]
    if settings.below_last_blessed == "refuse":
        own += [Limit(metric=name, fall_at_most=0.0, beyond_noise=True) for name in settings.statistics.recalls]
    return (*own, *settings.limits)


class EvaluatorExecutor(executor.Executor):
    """TFX's executor; afterwards sets metrics, and reasons for a refused blessing, on the evaluation as JSON.

    All metrics are in its `metrics.json` (see `read_metrics`); the property `metrics` has those of all interactions, and recall@K
    of each slice. The property `refused` has a sentence for each missed limit, `not_judged` the slices with a limit but without
    interactions, including items as new: TFX would refuse a blessing for that, and for a change within its noise
    even if the limit allows that (`Limit.beyond_noise`); this executor does not.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method."""
        super().Do(input_dict, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_instance(output_dict[standard_component_specs.EVALUATION_KEY])
        config = tfma.EvalConfig()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.EVAL_CONFIG_KEY], config)
        metrics = read_metrics(evaluation.uri, config)
        io_utils.write_string_file(os.path.join(evaluation.uri, METRICS_FILE), json.dumps(metrics))
        evaluation.set_string_custom_property(recorded.METRICS, json.dumps(in_short(metrics)))
        validation = tfma.load_validation_result(evaluation.uri)
        failures = _failures(validation)
        within_noise = [each for each in failures if _is_within_noise(*each, metrics, _described(config))]
        refused = [
            _refusal(of_slice, failure, metrics, _described(config))
            for of_slice, failure in failures
            if not _is_of_nothing(failure) and (of_slice, failure) not in within_noise
        ]
        evaluation.set_string_custom_property(recorded.REFUSED, json.dumps(refused))
        empty = sorted(
            {_slice_words(dict(spec.feature_values)) for spec in validation.missing_slices}
            | {_words_as_new(each.slice_key) for each, failure in failures if _is_of_nothing(failure)}
        )
        evaluation.set_string_custom_property(recorded.NOT_JUDGED, json.dumps(empty))
        if (empty or within_noise) and not refused and not validation.missing_thresholds:
            blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
            fileio.rename(
                os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME),
                os.path.join(blessing.uri, constants.BLESSED_FILE_NAME),
            )
            blessing.set_int_custom_property(recorded.BLESSED, constants.BLESSED_VALUE)


class RetrievalEvaluator(Evaluator):
    """TFX's Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)


def read_metrics(folder: str, config: tfma.EvalConfig) -> dict[str, Any]:
    """Read an evaluation's metrics.

    Args:
        folder: the evaluation's folder.
        config: the `eval_config` that it was made with.

    Returns:
        By slice (`all`, or `name=value`): the number of `interactions` and of `queries`; and by scorer, and for the `change`
        against the baseline, each statistic's `[value, lower, upper]`, with the ends of its 95 % interval, or null without one.
        `all` also names the ranked `candidates`.
    """
    described = _described(config)
    found: dict[str, Any] = {}
    by_slice = {_slice_name(metrics.slice_key): metrics for metrics in tfma.load_metrics(folder)}
    # Beam's runners bring the slices in orders of their own.
    for name, metrics in sorted(by_slice.items(), key=lambda found: (found[0] != ALL, found[0])):
        of_slice: dict[str, Any] = found.setdefault(name, {})
        order = list(described)
        for each in sorted(metrics.metric_keys_and_values, key=lambda found: order.index(found.key.name)):
            arguments, value = described[each.key.name], each.value.double_value.value
            statistic = arguments["statistic"]
            if statistic in (INTERACTIONS, QUERIES) and not arguments["scorer"]:
                of_slice[statistic] = round(value)
                continue
            if math.isnan(value):  # the scorer ranked none of the slice's interactions
                continue
            measures = Statistics(**arguments["statistics"])
            found.setdefault(ALL, {})["candidates"] = measures.candidates
            ends: list[float | None] = [None, None]
            if each.HasField("confidence_interval"):
                lower, upper = (
                    getattr(each.confidence_interval, end).double_value.value for end in ("lower_bound", "upper_bound")
                )
                if not (each.key.is_diff or arguments["over"] or statistic == measures.novelty):
                    _, lower, upper = within_a_share([value, lower, upper])  # TFMA's are symmetric
                ends = [lower, upper]
            scorer = "change" if each.key.is_diff else arguments["scorer"] or each.key.model_name or CANDIDATE
            shown = gain_name(statistic, arguments["over"]) if arguments["over"] else statistic
            of_slice.setdefault(scorer, {})[shown] = [value, *ends]
    return found


def in_short(metrics: dict[str, Any]) -> dict[str, Any]:
    """Select all metrics of the whole, and recall@K of slices."""
    return {
        name: of_slice
        if name == ALL
        else {
            key: {n: v for n, v in value.items() if n.startswith("recall_at_") and "_over_" not in n}
            if isinstance(value, dict)
            else value
            for key, value in of_slice.items()
            if key != "change"
        }
        for name, of_slice in metrics.items()
    }


def _slice_name(key: Any) -> str:
    values = {each.column: getattr(each, each.WhichOneof("kind")) for each in key.single_slice_keys}
    return _slice_words({n: v.decode() if isinstance(v, bytes) else str(v) for n, v in values.items()})


def _slice_words(values: Mapping[str, str]) -> str:
    prefix = slices.feature("")
    return ", ".join(f"{name.removeprefix(prefix)}={value}" for name, value in sorted(values.items())) or ALL


def _described(config: tfma.EvalConfig) -> dict[str, Any]:
    """Map each metric's name in TFMA to its arguments."""
    metrics = (json.loads(metric.config) for spec in config.metrics_specs for metric in spec.metrics)
    return {each["name"]: each for each in metrics}


def _refusal(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> str:
    """Describe a limit that the model misses, in a sentence."""
    interval = ""
    if failure.metric_key.is_diff and _asks_for_noise(of_slice, failure, described):
        _, lower, upper = _change(of_slice, failure, metrics, described)
        interval = f" (95 %: {lower:+.4f} to {upper:+.4f})"
    return f"{failure.metric_key.name}{_where(of_slice.slice_key)}: {_limit(failure)}{interval}"


def _is_within_noise(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> bool:
    """Return whether a change limit has to be exceeded beyond noise, but the interval includes the allowed value."""
    if not failure.metric_key.is_diff or not _asks_for_noise(of_slice, failure, described):
        return False
    _, lower, upper = _change(of_slice, failure, metrics, described)
    if lower is None or upper is None:
        return True
    allowed = failure.metric_threshold.change_threshold
    is_fall = allowed.direction == tfma.MetricDirection.HIGHER_IS_BETTER
    return bool(upper >= allowed.absolute.value if is_fall else lower <= allowed.absolute.value)


def _asks_for_noise(of_slice: Any, failure: Any, described: dict[str, Any]) -> bool:
    place = [_slice_name(of_slice.slice_key), failure.metric_threshold.change_threshold.absolute.value]
    return place in described[failure.metric_key.name]["beyond_noise"]


def _change(of_slice: Any, failure: Any, metrics: dict[str, Any], described: dict[str, Any]) -> Interval:
    changes = metrics[_slice_name(of_slice.slice_key)]["change"]
    return changes[described[failure.metric_key.name]["statistic"]]


def _failures(validation: tfma.ValidationResult) -> list[tuple[Any, Any]]:
    return [(each, failure) for each in validation.metric_validations_per_slice for failure in each.failures]


def _is_of_nothing(failure: Any) -> bool:
    """Return whether no interaction had an item as new; other metrics that are NaN miss their limit."""
    is_as_new = failure.metric_key.name.endswith(f"_by_{AS_NEW}")
    return is_as_new and math.isnan(failure.metric_value.double_value.value)


def _words_as_new(slice_key: Any) -> str:
    return f"{ITEM_AGE}={AS_NEW}" + ("" if (name := _slice_name(slice_key)) == ALL else f", {name}")


def _where(slice_key: Any) -> str:
    name = _slice_name(slice_key)
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
    own = [
        limit
        for limit in limits(settings)
        if limit.metric == of_limits and scorer == (AS_NEW if limit.of_new_items else "")
    ]
    # A limit with `beyond_noise` is dropped if an equal one without it exists.
    places = [(_slice_words(limit.slice), _change_allowed(limit)) for limit in own]
    strict = [place for place, limit in zip(places, own, strict=True) if not limit.beyond_noise]
    arguments["beyond_noise"] = [place for place in places if place not in strict]
    metric = tfma.MetricConfig(
        class_name=RankingMetric.__name__, module=RankingMetric.__module__, config=json.dumps(arguments)
    )
    for limit in own:
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


def metric_name(settings: EvaluatorSettings, statistic: str, scorer: str = "", over: str = "") -> str:
    """Return a metric's name in TFMA: the statistic, the candidate set, and the scorer unless it is the model under evaluation."""
    name = f"{statistic}_of_{settings.statistics.candidates}"
    by = f"{name}_by_{scorer}" if scorer else name
    return gain_name(by, over) if over else by


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
