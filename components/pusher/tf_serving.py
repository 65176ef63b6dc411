"""What TF Serving is started with: the models of a push folder, and how it batches. Nothing heavy is imported."""

from collections.abc import Iterable, Mapping

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

MODEL_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"

KEPT_VERSIONS = 2  # the live one and the one before it, which clients may still name
MAX_BATCH_ROWS = 64
BATCH_TIMEOUT_MICROS = 1000
# Each client of ours waits for an answer before it asks again, so that a queue of more batches than this is a server that cannot
# keep up, which then says so.
MAX_ENQUEUED_BATCHES = 100


def model_config(push_folder: str, models: Iterable[str]) -> str:
    """TF Serving's ModelServerConfig, as text, for --model_config_file.

    Args:
        push_folder: its absolute path or address, as TF Serving sees it.
        models: the parts that are served, each a folder below it.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for name in models:
        model = config.model_config_list.config.add(
            name=name, base_path=f"{push_folder}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.latest.num_versions = KEPT_VERSIONS
    return text_format.MessageToString(config)


def labels(config: str) -> dict[str, int]:
    """The labels in a ModelServerConfig, by name the version; those of all models are the same.

    Raises:
        ValueError: it is not a ModelServerConfig.
    """
    models = _parsed(config).model_config_list.config
    return dict(models[0].version_labels) if models else {}


def with_labels(config: str, labels: Mapping[str, int], kept_versions: int) -> str:
    """A ModelServerConfig with other labels.

    Args:
        config: as text.
        labels: by name the version.
        kept_versions: the number of newest versions that are served; TF Serving refuses a configuration with a label for another.

    Raises:
        ValueError: it is not a ModelServerConfig.
    """
    parsed = _parsed(config)
    for model in parsed.model_config_list.config:
        model.version_labels.clear()
        model.version_labels.update(labels)
        model.model_version_policy.latest.num_versions = kept_versions
    return text_format.MessageToString(parsed)


def _parsed(config: str) -> model_server_config_pb2.ModelServerConfig:
    try:
        return text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(f"expected TF Serving's ModelServerConfig, found something else: {error}") from error


def batching_parameters() -> str:
    """TF Serving's BatchingParameters, as text, for --batching_parameters_file; no Python package has that proto.

    Inputs of different lengths are not padded: TF Serving pads with a tensor's first value, which would lengthen a history by
    items that were never seen. Clients whose inputs vary in length ask `serving_examples`, whose inputs do not.
    """
    return (
        f"max_batch_size {{ value: {MAX_BATCH_ROWS} }}\n"
        f"batch_timeout_micros {{ value: {BATCH_TIMEOUT_MICROS} }}\n"
        f"max_enqueued_batches {{ value: {MAX_ENQUEUED_BATCHES} }}\n"
        "pad_variable_length_inputs: false\n"
    )
