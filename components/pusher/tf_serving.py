"""Configures TF Serving: the models of a push folder, and batching. Imports nothing heavy."""

from collections.abc import Iterable, Mapping

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from ndr_client.served import RETRIEVER, is_of_shard, undivided

MODEL_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"

KEPT_VERSIONS = 2  # the live one and the one before it, which clients may still name
MAX_BATCH_ROWS = 64
BATCH_TIMEOUT_MICROS = 1000
# Our clients wait for an answer before they ask again, so a queue of more batches means a server that cannot
# keep up, which then refuses requests.
MAX_ENQUEUED_BATCHES = 100


def model_config(push_folder: str, models: Iterable[str]) -> str:
    """Return TF Serving's ModelServerConfig, as text, for --model_config_file.

    Args:
        push_folder: its absolute path or address, as TF Serving sees it.
        models: the components to serve, each a folder below it.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for name in models:
        model = config.model_config_list.config.add(
            name=name, base_path=f"{push_folder}/{name}", model_platform="tensorflow"
        )
        model.model_version_policy.latest.num_versions = KEPT_VERSIONS
    return text_format.MessageToString(config)


def labels(config: str) -> dict[str, int]:
    """Return the version of each label in a ModelServerConfig; all models have the same.

    Raises:
        ValueError: it is not a ModelServerConfig.
    """
    models = _parsed(config).model_config_list.config
    return dict(models[0].version_labels) if models else {}


def with_labels(config: str, labels: Mapping[str, int], kept_versions: int) -> str:
    """Return a ModelServerConfig with other labels.

    Args:
        config: as text.
        labels: the version of each label.
        kept_versions: the number of newest versions to serve; TF Serving rejects a label of any other version.

    Raises:
        ValueError: it is not a ModelServerConfig.
    """
    parsed = _parsed(config)
    for model in parsed.model_config_list.config:
        model.version_labels.clear()
        model.version_labels.update(labels)
        model.model_version_policy.latest.num_versions = kept_versions
    return text_format.MessageToString(parsed)


def configs_of_shards(config: str) -> dict[str, str]:
    """Return, by file name, the ModelServerConfig of a server of each shard: with the towers, and that shard's retriever.

    Args:
        config: with all models.

    Raises:
        ValueError: it is not a ModelServerConfig.
    """
    models = _parsed(config).model_config_list.config
    divided = [model.name for model in models if undivided(model.name) == RETRIEVER != model.name]
    configs = {}
    for shard in sorted({int(name.split("-")[1]) for name in divided}):
        shard_config = model_server_config_pb2.ModelServerConfig()
        shard_config.model_config_list.config.extend(model for model in models if is_of_shard(model.name, shard))
        configs[config_of_shard(shard)] = text_format.MessageToString(shard_config)
    return configs


def config_of_shard(shard: int) -> str:
    """Return the name of the file with the ModelServerConfig of a shard's server."""
    return f"models-{shard}.config"


def _parsed(config: str) -> model_server_config_pb2.ModelServerConfig:
    try:
        return text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(f"expected TF Serving's ModelServerConfig, found something else: {error}") from error


def batching_parameters() -> str:
    """Return TF Serving's BatchingParameters, as text, for --batching_parameters_file; no Python package has that proto.

    Inputs of different lengths are not padded: TF Serving pads with a tensor's first value, which would add items to a history
    that were never seen. Clients with inputs of varying length use `serving_examples`, whose inputs do not vary.
    """
    return (
        f"max_batch_size {{ value: {MAX_BATCH_ROWS} }}\n"
        f"batch_timeout_micros {{ value: {BATCH_TIMEOUT_MICROS} }}\n"
        f"max_enqueued_batches {{ value: {MAX_ENQUEUED_BATCHES} }}\n"
        "pad_variable_length_inputs: false\n"
    )
