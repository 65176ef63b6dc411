"""TFX's ExampleValidator, which reports anomalies, changed to stop the run."""

from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components import ExampleValidator
from tfx.components.example_validator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.artifacts import Artifacts
from schemas.errors import UserError


class StoppingExecutor(executor.Executor):
    """TFX's executor; afterwards raises a UserError that names every anomaly."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> Any:
        """Override of TFX's method.

        Raises:
            UserError: the statistics violate the schema.
        """
        result = super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict[standard_component_specs.ANOMALIES_KEY])
        sentences = []
        for split in artifact_utils.decode_split_names(artifact.split_names):
            sentences += [f"{split} split: {anomaly}" for anomaly in describe(_read(artifact, split))]
        if sentences:
            raise UserError(
                "The data does not keep to its schema:\n  "
                + "\n  ".join(sentences)
                + "\nMend the data, or, where the data is right, the schema (interactions.pbtxt or catalogue.pbtxt of the dataset)."
            )
        return result


class StoppingExampleValidator(ExampleValidator):
    """TFX's ExampleValidator with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(StoppingExecutor)


def describe(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """Describe each anomaly in a sentence: the feature, and TFDV's description."""
    sentences = [
        f"{feature}: {reason.description}"
        for feature, anomaly in sorted(anomalies.anomaly_info.items())
        for reason in anomaly.reason
    ]
    dataset = [f"the whole split: {reason.description}" for reason in anomalies.dataset_anomaly_info.reason]
    missing = ["no data came"] if anomalies.data_missing else []
    return sentences + dataset + missing


def _read(artifact: types.Artifact, split: str) -> anomalies_pb2.Anomalies:
    path = f"{artifact_utils.get_split_uri([artifact], split)}/{executor.DEFAULT_FILE_NAME}"
    return anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
