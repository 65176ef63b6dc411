"""What TF Serving is told of a push folder: which models, and how it batches requests."""

import posixpath
from collections.abc import Iterable

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.artifacts import RETRIEVER
from components.indexer.files import write_whole
from components.pusher import files
from components.trainer.export import ITEM_TOWER, QUERY_TOWER

MODELS = (QUERY_TOWER, ITEM_TOWER, RETRIEVER)
MODEL_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
VERSIONS = 2  # whoever asks for the version before by its number is still answered while servers change over
# Of TF Serving's BatchingParameters, which no Python package has: a request waits at most a millisecond for others to join it.
BATCHING = "max_batch_size { value: 64 }\nbatch_timeout_micros { value: 1000 }\n"


def write_config(root: str) -> None:
    """Writes `models.config` and `batching.config` to a push folder's root, for `tensorflow_model_server`.

    Args:
        root: of the push folder; the models are those of MODELS that were ever pushed there.
    """
    models = [name for name in MODELS if files.exists(posixpath.join(root, name))]
    for name, text in ((MODEL_CONFIG, model_config(root, models)), (BATCHING_CONFIG, BATCHING)):
        write_whole(posixpath.join(root, name), text.encode())


def model_config(root: str, models: Iterable[str]) -> str:
    """TF Serving's ModelServerConfig, as text.

    Args:
        root: the folder that has a folder for each model.
        models: their names.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for name in models:
        model = config.model_config_list.config.add(
            name=name, base_path=posixpath.join(root, name), model_platform="tensorflow"
        )
        model.model_version_policy.latest.num_versions = VERSIONS
    return text_format.MessageToString(config)
