"""TFX's Evaluator over ranked examples, which also leaves its metrics where they are read without TFMA."""

import json
from typing import Any

import tensorflow_model_analysis as tfma
from tfx import types
from tfx import v1 as tfx
from tfx.components.evaluator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs

from components.evaluator.metrics import BASELINE, CANDIDATE, POPULARITY, RecallAtK, RecallGainAtK, rank_feature
from components.evaluator.settings import EvaluatorSettings

METRICS_PROPERTY = "metrics"
REFUSED_PROPERTY = "refused"


def recall_name(k: int, scorer: str = "") -> str:
    """The name of recall@K of the model, or of another scorer."""
    return f"{scorer}_recall_at_{k}" if scorer else f"recall_at_{k}"


def eval_config(settings: EvaluatorSettings) -> tfma.EvalConfig:
    """What TFMA computes from ranked examples, and the limits that bless."""
    metrics = []
    for k in settings.recall_at:
        recall = _threshold(settings.minimum_recall.get(k), settings.maximum_fall.get(k))
        gain = _threshold(settings.minimum_gain_over_popularity.get(k))
        metrics += [
            _metric(RecallAtK, recall, k=k, name=recall_name(k)),
            _metric(RecallAtK, None, k=k, name=recall_name(k, POPULARITY), scorer=POPULARITY),
            _metric(RecallGainAtK, gain, k=k, name=f"recall_gain_at_{k}_over_{POPULARITY}", over=POPULARITY),
        ]
    metrics.append(tfma.MetricConfig(class_name="ExampleCount", config=json.dumps({"name": "interactions"})))
    # TFX leaves out the baseline, and what is compared with it, where there is none.
    models = [
        tfma.ModelSpec(
            name=name,
            model_type=tfma.constants.MATERIALIZED_PREDICTION,
            prediction_key=rank_feature(name),
            is_baseline=name == BASELINE,
        )
        for name in (CANDIDATE, BASELINE)
    ]
    return tfma.EvalConfig(
        model_specs=models, slicing_specs=[tfma.SlicingSpec()], metrics_specs=[tfma.MetricsSpec(metrics=metrics)]
    )


class EvaluatorExecutor(executor.Executor):
    """TFX's executor; afterwards the overall metrics, and why a model is not blessed, stand on the evaluation, as JSON."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        super().Do(input_dict, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_instance(output_dict[standard_component_specs.EVALUATION_KEY])
        has_baseline = bool(input_dict.get(standard_component_specs.BASELINE_MODEL_KEY))
        metrics = _overall(evaluation.uri, CANDIDATE if has_baseline else None)  # a model alone has no name in TFMA
        if has_baseline:
            of_baseline = _overall(evaluation.uri, BASELINE)
            metrics |= {f"{BASELINE}_{n}": v for n, v in of_baseline.items() if n.startswith(recall_name(0)[:-1])}
        evaluation.set_string_custom_property(METRICS_PROPERTY, json.dumps(metrics, sort_keys=True))
        refusals = _refusals(tfma.load_validation_result(evaluation.uri))
        evaluation.set_string_custom_property(REFUSED_PROPERTY, json.dumps(refusals))


class RetrievalEvaluator(tfx.components.Evaluator):
    """TFX's Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)


def _overall(folder: str, model: str | None) -> dict[str, float]:
    """A model's metrics over all interactions, without what TFMA compares them with."""
    overall = tfma.load_eval_result(folder, model_name=model).get_metrics_for_slice(())
    return {
        name: value["doubleValue"]
        for name, value in overall.items()
        if "doubleValue" in value and not name.endswith("_diff")
    }


def _refusals(validation: tfma.ValidationResult) -> list[str]:
    """A sentence for each limit that the model does not reach."""
    return [
        f"{failure.metric_key.name}: {_limit(failure)}"
        for each in validation.metric_validations_per_slice
        for failure in each.failures
    ]


def _limit(failure: Any) -> str:
    value, threshold = failure.metric_value.double_value.value, failure.metric_threshold
    if failure.metric_key.is_diff:
        allowed = -threshold.change_threshold.absolute.value
        return f"{-value:.4f} below that of the last blessed model; {allowed:.4f} is allowed"
    return f"{value:.4f}; expected at least {threshold.value_threshold.lower_bound.value:.4f}"


def _metric(
    metric: type[tfma.metrics.Metric], threshold: tfma.MetricThreshold | None, **arguments: Any
) -> tfma.MetricConfig:
    return tfma.MetricConfig(
        class_name=metric.__name__, module=metric.__module__, config=json.dumps(arguments), threshold=threshold
    )


def _threshold(floor: float | None, maximum_fall: float | None = None) -> tfma.MetricThreshold | None:
    """A lower bound for a metric's value, and for its change against the baseline's."""
    if floor is None and maximum_fall is None:
        return None
    threshold = tfma.MetricThreshold()
    if floor is not None:
        threshold.value_threshold.lower_bound.value = floor
    if maximum_fall is not None:
        threshold.change_threshold.direction = tfma.MetricDirection.HIGHER_IS_BETTER
        threshold.change_threshold.absolute.value = -maximum_fall
    return threshold
