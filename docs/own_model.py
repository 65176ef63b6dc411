"""A Keras model of one's own, trained by ndr's loss and frequency estimator, saved, and loaded again."""

import tensorflow as tf
import tf_keras

from components.trainer.frequency import FrequencyEstimator
from components.trainer.loss import InBatchSoftmax, Items

USERS, ITEMS, WIDTH, BATCH = 1_000, 200, 16, 256


class TwoTables(tf_keras.Model):
    """The smallest two towers: a row for each user, and one for each item."""

    def __init__(self) -> None:
        super().__init__()
        self.users = tf_keras.layers.Embedding(USERS, WIDTH)
        self.items = tf_keras.layers.Embedding(ITEMS, WIDTH)
        self.softmax = InBatchSoftmax(temperature=0.1)
        self.estimator = FrequencyEstimator(buckets=4 * ITEMS, hashes=2)

    def call(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """[batch] of users and items to a scalar, the loss of the batch."""
        users = tf.math.l2_normalize(self.users(batch["user"]), axis=1)
        items = tf.math.l2_normalize(self.items(batch["item"]), axis=1)
        # Once a step and before the loss: how often each item is expected in a batch, from the stream itself.
        counts = self.estimator(batch["item"])
        return self.softmax(users, Items(items, batch["item"], counts), rewards=tf.ones_like(counts))

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Train on a batch; Keras calls this."""
        with tf.GradientTape() as tape:
            loss = self(batch)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


def stream(seed: int) -> tf.data.Dataset:
    """Yield users with similar items: user u takes item u modulo ITEMS, or the one after it."""
    random = tf.random.Generator.from_seed(seed)

    def batch(_: tf.Tensor) -> dict[str, tf.Tensor]:
        users = random.uniform([BATCH], 0, USERS, tf.int64)
        return {"user": users, "item": (users + random.uniform([BATCH], 0, 2, tf.int64)) % ITEMS}

    return tf.data.Dataset.range(200).map(batch)


def main(folder: str) -> tuple[float, float]:
    """Trains, saves to `folder`, and loads into another model; gives the losses of the same batch by both."""
    tf_keras.utils.set_random_seed(1)
    model = TwoTables()
    model.compile(optimizer=tf_keras.optimizers.Adagrad(0.5))
    model.fit(stream(1), epochs=2, verbose=0)
    model.save_weights(f"{folder}/weights.h5")  # tables, temperature, and what the estimator has counted
    (batch,) = stream(2).take(1)
    again = TwoTables()
    again(batch)  # makes its variables
    again.load_weights(f"{folder}/weights.h5")
    return float(model(batch)), float(again(batch))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        print("loss {:.4f}, and {:.4f} by the model that was loaded".format(*main(made)))
