"""Replays the requests that were pushed with a model, so that it is warm for its first real one."""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.trainer.warmup import MOST_RECORDS, REQUESTS_FILE
from serving import predict
from serving.servable import Servable


def replay(servable: Servable, folder: Path) -> None:
    """Run each request of the model's warm-up file, if it has one.

    Raises:
        ValueError: there are more than MOST_RECORDS, or one that is not a Predict request.
        RequestError: the model rejects one.
        tf.errors.DataLossError: the file is truncated.
    """
    path = folder / REQUESTS_FILE
    if not path.exists():
        return
    for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if number >= MOST_RECORDS or not log.HasField("predict_log"):
            raise ValueError(
                f"{path}: expected at most {MOST_RECORDS} Predict requests, found others at record {number}"
            )
        predict.predict(servable, log.predict_log.request)
