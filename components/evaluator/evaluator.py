"""TFX's Evaluator over ranked examples; also writes its metrics in a form that is read without TFMA."""

import json
import os
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
from components.evaluator.evaluation import METRICS_FILE, described_metrics, in_short, read_metrics, slice_words
from components.evaluator.refusals import failures, is_of_nothing, is_within_noise, refusal, words_of_nothing


class EvaluatorExecutor(executor.Executor):
    """TFX's executor; afterwards sets metrics, and reasons for a refused blessing, on the evaluation as JSON.

    All metrics are in its `metrics.json` (see `read_metrics`); the property `metrics` has those of all interactions, and recall@K
    of each slice. The property `refused` has a sentence for each missed limit, `not_judged` the slices with a limit but without
    interactions, including items as new, or without a query that was searched: TFX would refuse a blessing for that, and for a
    change within its noise even if the limit allows that (`Limit.beyond_noise`); this executor does not.
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
        missed = failures(validation)
        within_noise = [miss for miss in missed if is_within_noise(*miss, metrics, described_metrics(config))]
        refused = [
            refusal(of_slice, failure, metrics, described_metrics(config))
            for of_slice, failure in missed
            if not is_of_nothing(failure) and (of_slice, failure) not in within_noise
        ]
        evaluation.set_string_custom_property(recorded.REFUSED, json.dumps(refused))
        empty = sorted(
            {slice_words(dict(spec.feature_values)) for spec in validation.missing_slices}
            | {words_of_nothing(*miss) for miss in missed if is_of_nothing(miss[1])}
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
