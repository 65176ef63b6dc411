"""Warm-up requests: TF Serving and the embedded server run them on a loaded model before it is live."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

REQUESTS_FILE = "assets.extra/tf_serving_warmup_requests"
MOST_RECORDS = 1000  # in a file; TF Serving refuses a model with more
BATCH_SIZES = (1, 64)  # a small one, and the largest that servers merge concurrent requests to
# The values of a request, by dtype: an unknown id (or an Example without features), a number, and a number of items.
VALUES: Mapping[tf.DType, Any] = {tf.string: b"", tf.float32: 0.0, tf.int32: 10}


def write_warmup(folder: str, model: str, signatures: Mapping[str, Any]) -> None:
    """Write a small and a full request for each signature of a model into its SavedModel.

    Args:
        folder: the SavedModel's.
        model: its name when served.
        signatures: concrete functions of named inputs, whose first dimension is the batch; other unknown dimensions become 1.
    """
    write_requests(
        folder, (_request(model, name, function, size) for name, function in signatures.items() for size in BATCH_SIZES)
    )


def write_requests(folder: str, requests: Iterable[predict_pb2.PredictRequest]) -> None:
    """Write requests into a SavedModel; directly, because the folder is not visible yet."""
    path = os.path.join(folder, REQUESTS_FILE)
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.TFRecordWriter(path) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString(deterministic=True))


def _request(model: str, signature: str, function: Any, batch: int) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for spec in tf.nest.flatten(function.structured_input_signature):
        request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(_values(spec, batch)))
    return request


def _values(spec: tf.TensorSpec, batch: int) -> NDArray[Any]:
    shape = [batch, *(size or 1 for size in spec.shape[1:])]
    dtype = object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    return np.full(shape, VALUES[spec.dtype], dtype)
