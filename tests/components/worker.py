"""One worker process of `test_replicas`; TF_CONFIG says which."""

import json

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()

from tests.components.test_replicas import steps_on  # noqa: E402  the strategy must be the first to use TensorFlow

print(json.dumps(steps_on(strategy)))
