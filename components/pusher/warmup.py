"""Warm-up requests: TF Serving and the embedded server run them on a model that they have loaded, before it is live."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2

REQUESTS_FILE = "assets.extra/tf_serving_warmup_requests"
MOST_RECORDS = 1000  # of a file; TF Serving refuses a model with more


def write_warmup(
    folder: str, model: str, rows: Mapping[str, Mapping[str, NDArray[Any]]], batch_sizes: tuple[int, ...]
) -> None:
    """Writes a model's warm-up requests into its SavedModel; not aside, as nobody may see that folder yet.

    Args:
        folder: the SavedModel's.
        model: the name that it is served under.
        rows: for each signature the inputs of a request of one row, each [1, ...]; text as bytes objects.
        batch_sizes: for each signature, a request of so many of that row, for each.
    """
    path = f"{folder}/{REQUESTS_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in rows.items():
            for size in batch_sizes:
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = model
                request.model_spec.signature_name = signature
                for name, row in inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(np.repeat(row, size, axis=0)))
                writer.write(log.SerializeToString())
