"""TFX's DistributionValidator, which reports how a span differs from the previous one, changed to stop the run."""

import json
import os
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.components.distribution_validator import executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import distribution_validator_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.types.standard_component_specs import DistributionValidatorSpec
from tfx.utils import io_utils, json_utils

from components import recorded
from components.artifacts import Artifacts
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.example_validator import lengths
from components.example_validator.settings import ValidationSettings
from components.example_validator.stopping import describe
from components.utc import day_of
from schemas.declaration import Fault
from schemas.errors import UserError
from schemas.features import FeatureSpec, HistoryFeature, Numeric

SPLITS = (TRAIN_SPLIT, EVAL_SPLIT)
HISTORY_KEY = "history"


class StoppingDistributionValidatorSpec(component_spec.ComponentSpec):
    """TFX's spec, with the history whose lengths are compared: its name, its `last` and `least_history`, as JSON."""

    PARAMETERS = {
        **DistributionValidatorSpec.PARAMETERS,
        HISTORY_KEY: component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = DistributionValidatorSpec.INPUTS
    OUTPUTS = DistributionValidatorSpec.OUTPUTS
    TYPE_ANNOTATION = DistributionValidatorSpec.TYPE_ANNOTATION


def drift_faults(settings: ValidationSettings, spec: FeatureSpec) -> list[Fault]:
    """List each limit on a feature that the specification lacks: a key path below `settings`, and a reason."""
    known = ", ".join(sorted(spec.of_interactions))
    return [
        (("drift", name), f"expected a feature of the interactions ({known}), received {name!r}")
        for name in settings.drift
        if name not in spec.of_interactions
    ]


def distribution_config(
    settings: ValidationSettings, spec: FeatureSpec
) -> distribution_validator_pb2.DistributionValidatorConfig:
    """Convert the limits to TFX's form: Jensen-Shannon divergence for numbers, the L-infinity norm for all others.

    Raises:
        UserError: one line for each limit on a feature that the specification lacks.
    """
    faults = drift_faults(settings, spec)
    if faults:
        raise UserError("\n".join(f"{'.'.join(map(str, path))}: {reason}." for path, reason in faults))
    config = distribution_validator_pb2.DistributionValidatorConfig()
    for name, limit in settings.drift.items():
        feature = config.default_slice_config.feature.add()
        feature.path.step.append(name)
        comparator = feature.distribution_comparator
        is_number = isinstance(spec.features[name], Numeric)
        (comparator.jensen_shannon_divergence if is_number else comparator.infinity_norm).threshold = limit
    if settings.least_volume is not None:
        config.default_slice_config.num_examples_comparator.min_fraction_threshold = settings.least_volume
    if settings.most_volume is not None:
        config.default_slice_config.num_examples_comparator.max_fraction_threshold = settings.most_volume
    return config


class StoppingDistributionExecutor(executor.Executor):
    """TFX's executor; afterwards raises a UserError that names every change beyond its limit.

    Sets the lengths of histories on the artifact, in the form of `components.example_validator.lengths`.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> Any:
        """Override of TFX's method.

        Raises:
            UserError: the span is further from the previous one than the limits allow, or cannot be compared with it.
        """
        anomalies = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        current = artifact_utils.get_single_instance(input_dict[standard_component_specs.STATISTICS_KEY])
        (previous,) = input_dict[standard_component_specs.BASELINE_STATISTICS_KEY] or [None]
        if history := exec_properties.get(HISTORY_KEY):
            name, last, least = json.loads(history)
            train, held_out = (_load(current, split) for split in SPLITS)
            before = _load(previous, TRAIN_SPLIT) if previous else None
            found_lengths = lengths.compare(name, last, least, train, held_out, before)
            anomalies.set_string_custom_property(recorded.HISTORIES, found_lengths.to_json())
        # TFX records the artifact as it is when this returns; later changes are lost.
        result = super().Do(input_dict, output_dict, exec_properties)
        if previous is None:
            return result
        config = exec_properties[standard_component_specs.DISTRIBUTION_VALIDATOR_CONFIG_KEY]
        sentences = []
        for split in SPLITS:
            change = _in_words(_read(anomalies, split), config, _load(current, split), _load(previous, split))
            sentences += [f"{split} split: {sentence}" for sentence in describe(change)]
        if sentences:
            day, day_before = day_of(current.span), day_of(previous.span)
            raise UserError(
                f"The interactions of {day} (current) are further from those of {day_before} (previous) than is allowed:\n  "
                + "\n  ".join(sentences)
                + "\nMend the data, or, where the change is right, widen the limit (drift, least_volume or most_volume of "
                "the configuration)."
            )
        return result


class StoppingDistributionValidator(base_component.BaseComponent):
    """TFX's DistributionValidator with the executor above, for the train and the eval split.

    Args:
        statistics: of the span's interactions.
        baseline_statistics: of the previous span's. If the channel is empty, as on the first day, everything passes.
        settings: the limits.
        spec: tells which features are numbers.

    Raises:
        UserError: a limit is on a feature that the specification lacks.
    """

    SPEC_CLASS = StoppingDistributionValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(StoppingDistributionExecutor)

    def __init__(
        self,
        statistics: types.BaseChannel,
        baseline_statistics: types.BaseChannel,
        settings: ValidationSettings,
        spec: FeatureSpec,
    ) -> None:
        name = spec.history_feature
        history = spec.query.get(name) if name else None
        super().__init__(
            StoppingDistributionValidatorSpec(
                statistics=statistics,
                # TFX's executor handles a missing artifact, but TFX's spec requires one before the executor is called.
                baseline_statistics=baseline_statistics.as_optional(),
                distribution_validator_config=distribution_config(settings, spec),
                include_split_pairs=json_utils.dumps([(split, split) for split in SPLITS]),
                history=json.dumps([name, history.last, settings.least_history])
                if isinstance(history, HistoryFeature)
                else None,
                anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )


def _in_words(
    reported: anomalies_pb2.Anomalies,
    config: distribution_validator_pb2.DistributionValidatorConfig,
    current: statistics_pb2.DatasetFeatureStatistics,
    previous: statistics_pb2.DatasetFeatureStatistics,
) -> anomalies_pb2.Anomalies:
    """Add counts to TFX's report, and anomalies that it misses if there is nothing to compare.

    If the previous span has no value of a feature, TFDV takes every share as 0, so the distance may be below the limit; if it has
    no examples, TFDV computes no ratio and reports nothing.
    """
    anomalies = anomalies_pb2.Anomalies.FromString(reported.SerializeToString())
    for feature in config.default_slice_config.feature:
        name = ".".join(feature.path.step)
        values = _values(current, name), _values(previous, name)
        if not all(values):
            reasons = anomalies.anomaly_info[name].reason
            del reasons[:]
            reasons.add(
                description=f"There is nothing to compare: {values[0]} values in the current span, {values[1]} in the previous."
            )
    if config.default_slice_config.HasField("num_examples_comparator"):
        reasons = anomalies.dataset_anomaly_info.reason
        counts = current.num_examples, previous.num_examples
        if not all(counts):
            reasons.add(description="The numbers of examples cannot be compared.")
        for reason in reasons:
            reason.description += f" There are {counts[0]} examples in the current span, {counts[1]} in the previous."
    return anomalies


def _values(statistics: statistics_pb2.DatasetFeatureStatistics, name: str) -> int:
    """Return the number of values of a feature in all examples."""
    for feature in statistics.features:
        if list(feature.path.step) == [name]:
            return getattr(feature, feature.WhichOneof("stats")).common_stats.tot_num_values
    return 0


def _load(statistics: types.Artifact, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    return stats_artifact_utils.load_statistics(statistics, split).proto().datasets[0]


def _read(anomalies: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    path = os.path.join(anomalies.uri, f"SplitPair-{split}_{split}", executor.DEFAULT_FILE_NAME)
    return anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
