"""The optimizers, among them one for tables so large that a number beside each weight is too much."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from components.trainer.settings import TrainerSettings
from components.trainer.towers import TABLE

EPSILON = 1e-15  # added to the sums of squared gradients, so far below where they start


def build_optimizer(settings: TrainerSettings) -> tf_keras.optimizers.Optimizer:
    """The optimizer of a configuration."""
    match settings.optimizer:
        case "adagrad":
            # Keras starts at 0.1, beside which the gradients of a mean over a batch are nothing: the rate would stay a hundredth of
            # what is set, and the more so the larger the batch.
            return tf_keras.optimizers.Adagrad(
                settings.learning_rate, initial_accumulator_value=settings.adagrad_start, epsilon=EPSILON
            )
        case "rowwise_adagrad":
            return RowWiseAdagrad(settings.learning_rate, settings.adagrad_start)
        case "adam":
            return tf_keras.optimizers.Adam(settings.learning_rate)


class RowWiseAdagrad(tf_keras.optimizers.Optimizer):
    """Adagrad with one sum for each row of an embedding table, of the mean of the squares of the row's gradient.

    With g the gradient of a row w of a table, s its sum, and all other weights as in Adagrad (as if each were a row of one):

        s <- s + mean(g^2)
        w <- w - learning_rate * g / sqrt(s)

    A row without gradient is not touched. A table of 64 columns needs a 64th of Adagrad's memory beside its weights.

    Args:
        learning_rate: see above.
        start: what the sums start from.
    """

    def __init__(self, learning_rate: float, start: float, name: str = "RowWiseAdagrad") -> None:
        super().__init__(
            name=name, weight_decay=None
        )  # Keras's 0 would decay the whole table by nothing, at every step
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._start = start

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Makes the sums, [rows] of a table and of the weights' shape else; called by Keras."""
        super().build(var_list)
        if getattr(self, "_sums", None):
            return
        self._sums = [
            self.add_variable_from_reference(variable, "sum", initial_value=tf.fill(self._shape(variable), self._start))
            for variable in var_list
        ]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Called by Keras, which has added up what a sparse gradient has for the same row."""
        sums = self._sums[self._index_dict[self._var_key(variable)]]
        rate = tf.cast(self.learning_rate, variable.dtype)
        is_table = sums.shape.rank < variable.shape.rank
        if not isinstance(gradient, tf.IndexedSlices):
            sums.assign_add(tf.reduce_mean(tf.square(gradient), axis=1) if is_table else tf.square(gradient))
            variable.assign_sub(rate * gradient / tf.sqrt((sums[:, tf.newaxis] if is_table else sums) + EPSILON))
            return
        rows, squares = gradient.indices, tf.square(gradient.values)
        sums.scatter_add(tf.IndexedSlices(tf.reduce_mean(squares, axis=1) if is_table else squares, rows))
        of_rows = tf.gather(sums, rows) + EPSILON
        step = rate * gradient.values / tf.sqrt(of_rows[:, tf.newaxis] if is_table else of_rows)
        variable.scatter_sub(tf.IndexedSlices(step, rows))

    def _shape(self, variable: tf.Variable) -> tf.TensorShape:
        # The last part of `TABLE:0` or `some_table/TABLE:0`.
        is_table = variable.name.rpartition("/")[2].partition(":")[0] == TABLE
        return variable.shape[:1] if is_table else variable.shape
