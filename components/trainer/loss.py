"""The retrieval loss: which columns the softmax has, and how their sampling is corrected (paper, section 3)."""

import math
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

from components.trainer import replicas
from components.trainer.blocked_softmax import Candidates, cross_entropy

Correction = Literal["none", "logq", "logq_positive_left_out"]


class Items(NamedTuple):
    """Items that are columns of the softmax.

    Attributes:
        embeddings: [items, width] float, L2-normalised.
        ids: [items] int64.
        expected_counts: [items] float32, how often each is expected among the columns that the stream brings (a global batch).
    """

    embeddings: tf.Tensor
    ids: tf.Tensor
    expected_counts: tf.Tensor


class InBatchSoftmax(tf_keras.layers.Layer):
    """The mean over the global batch of reward times softmax cross-entropy against all other rows' items.

    - The logits are inner products over the temperature, from which the log of the expected count of the column's item among the
      columns is then subtracted (`correction="logq"`, paper, equation 3 and section 3), or not (`none`).
    - `logq_positive_left_out` leaves the positive, which was not sampled, uncorrected and out of the sampled set
      (Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025).
    - Uniform draws from the catalogue may join the columns (Yang et al., "Mixed Negative Sampling", WWW 2020); the expected
      count is then that of the mixture.
    - Columns with the id of the row's own item are left out (accidental hits).
    - The columns are those of all replicas, and a replica's loss is its rows' share of the mean over the global batch: the
      gradients that a strategy sums over replicas are those of the same batch on one device.

    A reward that is negative, infinite or NaN weighs nothing. A batch without rewards has loss 0, and so has a batch of one.
    The softmax is computed in float32, whatever the embeddings are.

    Args:
        correction: see above.
        temperature: divides the inner products; the start value where it is learned.
        learn_temperature: whether the temperature is trained with the towers, by its logarithm so that it stays positive.
        block_rows: rows of the batch whose logits are in memory at once.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        correction: Correction = "logq",
        temperature: float = 0.05,
        learn_temperature: bool = False,
        block_rows: int = 512,
        name: str = "in_batch_softmax",
    ) -> None:
        super().__init__(name=name)
        if correction not in ("none", "logq", "logq_positive_left_out"):
            raise ValueError(f"expected correction none, logq or logq_positive_left_out, received {correction!r}")
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"expected a finite temperature above 0, received {temperature!r}")
        if block_rows < 1:
            raise ValueError(f"expected block_rows of at least 1, received {block_rows!r}")
        self.correction = correction
        self.block_rows = block_rows
        self.log_temperature = self.add_weight(
            "log_temperature",
            dtype=tf.float32,
            initializer=tf_keras.initializers.Constant(math.log(temperature)),
            trainable=learn_temperature,
        )

    @property
    def temperature(self) -> tf.Tensor:
        """Scalar float32."""
        return tf.exp(self.log_temperature)

    def call(
        self,
        queries: tf.Tensor,
        items: Items,
        rewards: tf.Tensor,
        uniform_items: Items | None = None,
        catalogue_size: int = 0,
    ) -> tf.Tensor:
        """The loss of a batch, or of a replica's share of it.

        Args:
            queries: [batch, width] float, L2-normalised.
            items: [batch] positives of the queries, in their order.
            rewards: [batch] float, the paper's r_i.
            uniform_items: [draws] items drawn uniformly from the catalogue, as many on each replica.
            catalogue_size: how many items they were drawn from.

        Returns:
            Scalar float32.
        """
        batch = queries.shape[0] or tf.shape(queries)[0]
        columns = _gathered(items)
        counts = columns.expected_counts
        if uniform_items is not None:
            drawn = _gathered(uniform_items)
            columns = Items(*(tf.concat(pair, axis=0) for pair in zip(columns, drawn, strict=True)))
            draws = tf.cast(tf.shape(drawn.ids)[0], tf.float32)
            counts = columns.expected_counts + draws / tf.cast(catalogue_size, tf.float32)
        bias = tf.zeros_like(counts) if self.correction == "none" else -tf.math.log(counts)
        rewards = tf.cast(rewards, tf.float32)
        weighing = (rewards > 0.0) & tf.math.is_finite(rewards)
        total = cross_entropy(
            tf.cast(queries, tf.float32),
            Candidates(columns.embeddings, columns.ids, bias),
            positives=replicas.first_row(batch) + tf.range(batch),
            weights=tf.where(weighing, rewards, 0.0),
            inverse_temperature=1.0 / self.temperature,
            positive_left_out=self.correction == "logq_positive_left_out",
            block_rows=self.block_rows,
        )
        return total / tf.cast(batch * replicas.count(), tf.float32)


def _gathered(items: Items) -> Items:
    """A replica's items to those of all replicas."""
    return Items(
        replicas.gather(tf.cast(items.embeddings, tf.float32)),
        replicas.gather(items.ids),
        replicas.gather(items.expected_counts),
    )
