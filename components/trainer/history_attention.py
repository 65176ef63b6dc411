"""Pools a history to one vector, with a learned weight for each item instead of the mean.

With e_i the item's row of its table, a_i a learned row for its age, b_i one for its position from the newest, and prior_i the
weight given by `half_life` (1 without),

    q = query + seed * W
    weight_i = prior_i * exp(<q, e_i + a_i + b_i>) / sum_j prior_j * exp(<q, e_j + a_j + b_j>)

and the history is the sum of weight_i * e_i: dot-product attention with one head (Luong et al., EMNLP 2015) whose values are the
rows themselves. The seed is the row of the query's first feature of kind `id` with the history's table; without one, `query` alone
is used. All learned weights start from zero, so that an untrained encoder is the mean, and a model trained with the mean continues
from where it was.

Ages and positions are put into classes by powers of two. An item without an age has the zero vector for a_i. Training includes that
case: it hides all ages of a share of its queries (`components.trainer.inputs.masks_of`).
"""

import tensorflow as tf
import tf_keras

from components.transform.preprocessing import AGE_CLASSES
from components.transform.recency import newer_items

PLACE_BOUNDS = [float(1 << power) for power in range(11)]  # 0, 1, 2 to 3, ..., 1024 and more newer items
PLACE_CLASSES = len(PLACE_BOUNDS) + 1


class HistoryAttention(tf_keras.layers.Layer):
    """Pools the items of histories; see the module.

    Args:
        width: the width of the items' rows.
        has_seed: whether the query has a seed with the same table.
        has_ages: whether items may have ages.
        name: the history's name.

    Attributes:
        learned: the weights by name: `query` [width], `places` [PLACE_CLASSES, width]; `seed` [width, width] and `ages`
        [AGE_CLASSES, width] if used.
    """

    def __init__(self, width: int, has_seed: bool, has_ages: bool, name: str) -> None:
        super().__init__(name=f"{name}_attention")
        shapes = {"query": (width,), "places": (PLACE_CLASSES, width)}
        if has_seed:
            shapes["seed"] = (width, width)
        if has_ages:
            shapes["ages"] = (AGE_CLASSES, width)
        self.learned = {
            weight: self.add_weight(weight, shape=shape, initializer="zeros") for weight, shape in shapes.items()
        }

    def call(
        self, vectors: tf.Tensor, prior: tf.Tensor, ages: tf.Tensor | None = None, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Pool histories to vectors.

        Args:
            vectors: [batch, last, width] float32, the items' rows.
            prior: [batch, last] float32, not negative: each item's weight before anything is learned; 0 for no item.
            ages: [batch, last] int64 classes; NO_AGE for an unknown age.
            seed: [batch, width] float32, the row of the seed, if there is one.

        Returns:
            [batch, width] float32; zeros for an empty history.
        """
        weights = self.attend(vectors, prior, ages, seed)
        return tf.einsum("blw,bl->bw", vectors, weights)

    def attend(self, vectors: tf.Tensor, prior: tf.Tensor, ages: tf.Tensor | None, seed: tf.Tensor | None) -> tf.Tensor:
        """Return [batch, last] float32, the weight of each item, not negative; they sum to 1, or to 0 without items."""
        is_item = prior > 0.0
        query = tf.broadcast_to(self.learned["query"], [tf.shape(vectors)[0], vectors.shape[2]])
        if seed is not None:
            query += tf.matmul(seed, self.learned["seed"])
        places = tf.raw_ops.Bucketize(input=newer_items(is_item), boundaries=PLACE_BOUNDS)
        logits = tf.einsum("blw,bw->bl", vectors, query) + self._of_class("places", query, places)
        if ages is not None:
            logits += tf.where(ages >= 0, self._of_class("ages", query, tf.maximum(ages, 0)), 0.0)
        # For no item the logit is the lowest number and the prior 0, so it adds nothing to any sum.
        logits = tf.where(is_item, logits, tf.float32.min)
        highest = tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))
        weights = prior * tf.exp(logits - highest)
        return tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))

    def _of_class(self, weight: str, query: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Return [batch, last], the products of queries with the learned rows of classes, without a vector for each item."""
        return tf.gather(tf.matmul(query, self.learned[weight], transpose_b=True), classes, batch_dims=1)
