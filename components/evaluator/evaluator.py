"""TFX's Evaluator over ranked examples, which also leaves its metrics where they are read without TFMA."""

import json
from typing import Any

import tensorflow_model_analysis as tfma
from tfx import types
from tfx import v1 as tfx
from tfx.components.evaluator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs

from components.evaluator.metrics import CANDIDATE, POPULARITY, RecallAtK, RecallGainAtK, rank_feature
from components.evaluator.settings import EvaluatorSettings

METRICS_PROPERTY = "metrics"


def recall_name(k: int, scorer: str = "") -> str:
    """The name of recall@K of the model, or of another scorer."""
    return f"{scorer}_recall_at_{k}" if scorer else f"recall_at_{k}"


def eval_config(settings: EvaluatorSettings) -> tfma.EvalConfig:
    """What TFMA computes from ranked examples, and the limits that bless."""
    metrics = []
    for k in settings.recall_at:
        floor = settings.minimum_recall.get(k)
        gain = settings.minimum_gain_over_popularity.get(k)
        metrics += [
            _metric(RecallAtK, floor, k=k, name=recall_name(k)),
            _metric(RecallAtK, None, k=k, name=recall_name(k, POPULARITY), scorer=POPULARITY),
            _metric(RecallGainAtK, gain, k=k, name=f"recall_gain_at_{k}_over_{POPULARITY}", over=POPULARITY),
        ]
    metrics.append(tfma.MetricConfig(class_name="ExampleCount", config=json.dumps({"name": "interactions"})))
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                name=CANDIDATE,
                model_type=tfma.constants.MATERIALIZED_PREDICTION,
                prediction_key=rank_feature(CANDIDATE),
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics, model_names=[CANDIDATE])],
    )


class EvaluatorExecutor(executor.Executor):
    """TFX's executor; afterwards the overall metrics stand on the evaluation artifact, as JSON."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        super().Do(input_dict, output_dict, exec_properties)
        evaluation = artifact_utils.get_single_instance(output_dict[standard_component_specs.EVALUATION_KEY])
        result = tfma.load_eval_result(evaluation.uri)
        overall = result.get_metrics_for_slice(())
        metrics = {name: value["doubleValue"] for name, value in overall.items() if "doubleValue" in value}
        evaluation.set_string_custom_property(METRICS_PROPERTY, json.dumps(metrics, sort_keys=True))


class RetrievalEvaluator(tfx.components.Evaluator):
    """TFX's Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)


def _metric(metric: type[tfma.metrics.Metric], floor: float | None, **arguments: Any) -> tfma.MetricConfig:
    threshold = None
    if floor is not None:
        threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(lower_bound={"value": floor}))
    return tfma.MetricConfig(
        class_name=metric.__name__, module=metric.__module__, config=json.dumps(arguments), threshold=threshold
    )
