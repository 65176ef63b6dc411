"""A history as one vector, by a learned weight of each of its items instead of the mean.

With e_i the item's row of its table, a_i a learned row for how long ago it was taken, b_i one for its place from the newest, and
prior_i what `half_life` says (1 without),

    q = query + seed * W
    weight_i = prior_i * exp(<q, e_i + a_i + b_i>) / sum_j prior_j * exp(<q, e_j + a_j + b_j>)

and the history is the sum of weight_i * e_i: dot-product attention of one head (Luong et al., EMNLP 2015) whose values are the rows
themselves. The seed is the row of the query's first feature of kind `id` that has the history's table; where the query has none,
`query` alone asks. Everything learned starts from zero, so that an untrained encoder is the mean, and a model that was trained with
the mean goes on from where it was.

Ages and places are put into classes by powers of two. An item without an age has the zero vector for a_i, which training shows too:
it hides the ages of a share of its queries, all of a query's at once (`components.trainer.inputs.masks_of`).
"""

import tensorflow as tf
import tf_keras

from components.transform.preprocessing import AGE_CLASSES
from components.transform.recency import newer_items

PLACE_BOUNDS = [float(1 << power) for power in range(11)]  # 0, 1, 2 to 3, ..., 1024 and more items that are newer
PLACE_CLASSES = len(PLACE_BOUNDS) + 1


class HistoryAttention(tf_keras.layers.Layer):
    """Pools the items of histories; see the module.

    Args:
        width: of the items' rows.
        has_seed: whether the query has a seed, of the same table.
        has_ages: whether items may have ages.
        name: of the history.

    Attributes:
        learned: the weights by name: `query` [width], `places` [PLACE_CLASSES, width]; `seed` [width, width] and `ages`
            [AGE_CLASSES, width] where there are such.
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
        """The histories as vectors.

        Args:
            vectors: [batch, last, width] float32, the items' rows.
            prior: [batch, last] float32, at least 0: what each item weighs before anything is learned; 0 where there is none.
            ages: [batch, last] int64 classes; NO_AGE where the age is not known.
            seed: [batch, width] float32, the row of the seed, where there is one.

        Returns:
            [batch, width] float32; zeros for an empty history.
        """
        weights = self.attend(vectors, prior, ages, seed)
        return tf.einsum("blw,bl->bw", vectors, weights)

    def attend(self, vectors: tf.Tensor, prior: tf.Tensor, ages: tf.Tensor | None, seed: tf.Tensor | None) -> tf.Tensor:
        """[batch, last] float32, the weight of each item, at least 0; they sum to 1, or to 0 where there is no item."""
        there = prior > 0.0
        query = tf.broadcast_to(self.learned["query"], [tf.shape(vectors)[0], vectors.shape[2]])
        if seed is not None:
            query += tf.matmul(seed, self.learned["seed"])
        places = tf.raw_ops.Bucketize(input=newer_items(there), boundaries=PLACE_BOUNDS)
        logits = tf.einsum("blw,bw->bl", vectors, query) + self._of_class("places", query, places)
        if ages is not None:
            logits += tf.where(ages >= 0, self._of_class("ages", query, tf.maximum(ages, 0)), 0.0)
        # Where there is no item the logit is the lowest number and the prior 0: nothing of it is in any sum.
        logits = tf.where(there, logits, tf.float32.min)
        highest = tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))
        weights = prior * tf.exp(logits - highest)
        return tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))

    def _of_class(self, weight: str, query: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """[batch, last] the products of queries with the learned rows of classes, without a vector for each item."""
        return tf.gather(tf.matmul(query, self.learned[weight], transpose_b=True), classes, batch_dims=1)
