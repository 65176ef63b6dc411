"""One device and two replicas: the same loss, the same gradients, the same estimates. `test_strategies` has processes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer import strategies
from components.trainer.frequency import FrequencyEstimator
from components.trainer.loss import InBatchSoftmax, Items

STEPS, BATCH, WIDTH, UNIFORM = 12, 16, 4, 6


def steps_on(strategy: tf.distribute.Strategy, in_batch: bool) -> dict[str, Any]:
    """Trains two embedding tables for a few steps with a strategy; each replica has its share of the same global batches.

    Returns:
        The summed losses of the replicas, the weights, the estimates for all ids and the global step.
    """
    random = np.random.default_rng(0)
    ids = tf.constant(random.zipf(1.5, (STEPS, BATCH)) % 20, tf.int64)
    rewards = tf.constant(random.random((STEPS, BATCH)), tf.float32)
    drawn = tf.constant(random.integers(0, 20, (STEPS, UNIFORM)), tf.int64)
    start = random.normal(size=(2, 20, WIDTH)).astype(np.float32)
    with strategy.scope():
        queries, items = (tf.Variable(tf.math.l2_normalize(part, axis=1)) for part in start)
        loss = InBatchSoftmax("logq", 0.2, block_rows=3, in_batch=in_batch)
        estimator = FrequencyEstimator(64, hashes=2)

    @tf.function
    def replica_step(number: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()

        def share(values: tf.Tensor) -> tf.Tensor:
            parts = tf.reshape(values[number], [strategy.num_replicas_in_sync, -1])
            return parts[context.replica_id_in_sync_group]

        own, uniform = share(ids), share(drawn)
        with tf.GradientTape() as tape:
            value = loss(
                tf.gather(queries, own),
                Items(tf.gather(items, own), own, estimator(own)),
                share(rewards),
                Items(tf.gather(items, uniform), uniform, estimator.estimate(uniform)),
                catalogue_size=20,
            )
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, [queries, items])]
        for variable, gradient in zip([queries, items], context.all_reduce("sum", gradients), strict=True):
            variable.assign_sub(0.5 * gradient)
        return value

    losses = []
    for number in range(STEPS):
        shares = strategy.run(replica_step, args=(tf.constant(number),))
        losses.append(float(strategy.reduce("sum", shares, axis=None)))
    return {
        "losses": losses,
        "weights": [strategy.experimental_local_results(part)[0].numpy().tolist() for part in (queries, items)],
        "estimates": estimator.estimate(tf.range(20, dtype=tf.int64)).numpy().tolist(),
        "step": int(estimator.step.read_value()),
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["step"] == expected["step"] == STEPS
    np.testing.assert_allclose(found["estimates"], expected["estimates"], rtol=1e-6)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(found["weights"], expected["weights"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_batch", [True, False])
def test_two_replicas_train_as_one_device(in_batch: bool) -> None:
    one_device = steps_on(tf.distribute.OneDeviceStrategy("/cpu:0"), in_batch)
    assert_same(steps_on(strategies.mirrored(("CPU:0", "CPU:1")), in_batch), one_device)
