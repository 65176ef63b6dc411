"""Asks SavedModels by whichever TensorFlow runs this: their warm-up requests, and real rows; and lists its operations.

python ask.py '{"FOLDER OF A MODEL": "GLOB OF EXAMPLES", ...}' ANSWERS.pickle
"""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow_serving.apis import prediction_log_pb2

ROWS, K = 64, 7


def operations() -> dict[str, dict[str, set[str]]]:
    """By operation and attribute, the types that it may have; empty where it is no type, or may be any."""
    registered = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {
        each.name: {
            attribute.name: {tf.dtypes.as_dtype(kind).name for kind in attribute.allowed_values.list.type}
            for attribute in each.attr
        }
        for each in registered.op
    }


answers: dict[str | tuple[str, str, str], Any] = {"version": tf.__version__, "operations": operations()}
for folder, examples in json.loads(sys.argv[1]).items():
    signatures = tf.saved_model.load(folder).signatures
    rows = list(tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(examples)), "GZIP").take(ROWS).as_numpy_iterator())
    asked = {}
    for number, record in enumerate(tf.data.TFRecordDataset(f"{folder}/assets.extra/tf_serving_warmup_requests")):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        asked[request.model_spec.signature_name, f"warm-up {number}"] = inputs
    for name, signature in signatures.items():
        wanted = signature.structured_input_signature[1]
        if "examples" in wanted:
            inputs = {"examples": np.array(rows, object), "k": np.full(len(rows), K, np.int32)}
            asked[name, f"{len(rows)} rows"] = {each: inputs[each] for each in wanted}
    for (name, what), inputs in asked.items():
        tensors = {each: tf.constant(value) for each, value in inputs.items()}
        answers[folder, name, what] = {each: value.numpy() for each, value in signatures[name](**tensors).items()}
with Path(sys.argv[2]).open("wb") as file:
    pickle.dump(answers, file)
