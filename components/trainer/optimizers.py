"""The optimizers, including one for tables so large that a slot value for each weight is too much memory."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from components.trainer.settings import TrainerSettings
from components.trainer.towers import TABLE

ALL_BUT_KERNELS = r"^(?!.*kernel:\d+$)"  # a pattern for Keras, which searches it in the names of weights
EPSILON = 1e-15  # added to the sums of squared gradients; far below their start value


class OfRun(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A schedule over the steps of one run; the optimizer counts the steps of all days.

    Args:
        schedule: the schedule over the run's own steps.
    """

    def __init__(self, schedule: tf_keras.optimizers.schedules.LearningRateSchedule) -> None:
        self._schedule = schedule
        self.first_step = tf.Variable(0, trainable=False, dtype=tf.int64)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate of a step, numbered over all days."""
        return self._schedule(tf.cast(step, tf.int64) - self.first_step)


def build_optimizer(settings: TrainerSettings, steps: int = 1) -> tf_keras.optimizers.Optimizer:
    """Build the optimizer of a configuration.

    Args:
        settings: the trainer's settings.
        steps: the number of steps of the run, for schedules.
    """
    optimizer = _optimizer(settings, steps)
    optimizer.exclude_from_weight_decay(var_names=[ALL_BUT_KERNELS])
    return optimizer


def begin_run(optimizer: tf_keras.optimizers.Optimizer) -> None:
    """Tell a schedule that the run starts at the optimizer's current step."""
    if isinstance(schedule := optimizer._learning_rate, OfRun):
        schedule.first_step.assign(optimizer.iterations)


def learning_rate(settings: TrainerSettings, steps: int) -> float | OfRun:
    """Return the learning rate, or its schedule, of a run with a number of steps."""
    rate, schedule = settings.learning_rate, settings.schedule
    warmup = int(schedule.warmup_share * steps)
    if schedule.kind == "constant" and not warmup:
        return rate
    of_warmup = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
    start = 0.0 if warmup else rate
    falls = max(1, steps - warmup)
    if schedule.kind == "cosine":
        return OfRun(tf_keras.optimizers.schedules.CosineDecay(start, falls, schedule.end_share, **of_warmup))
    return OfRun(Straight(rate, warmup, falls, schedule.end_share if schedule.kind == "linear" else 1.0))


class Straight(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from 0 to the rate, then a linear fall to a share of it; Keras has a warm-up for its cosine only.

    Args:
        rate: the maximum.
        warmup: the number of steps of the rise.
        falls: the number of steps of the fall.
        end_share: the share of the rate at the end.
    """

    def __init__(self, rate: float, warmup: int, falls: int, end_share: float) -> None:
        self._fall = tf_keras.optimizers.schedules.PolynomialDecay(rate, falls, rate * end_share)
        self._rate, self._warmup = rate, warmup

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Return the learning rate of a step, counted from 0."""
        rises = self._rate * tf.cast(step, tf.float32) / max(1, self._warmup)
        return tf.where(step < self._warmup, rises, self._fall(tf.maximum(step - self._warmup, 0)))


def _optimizer(settings: TrainerSettings, steps: int) -> tf_keras.optimizers.Optimizer:
    rate = learning_rate(settings, steps)
    decay = settings.weight_decay or None  # None, not 0: Keras would still touch every weight for a decay of zero
    match settings.optimizer:
        case "adagrad":
            # Keras starts at 0.1, far above the squared gradients of a mean over a batch: the rate would stay at a hundredth of its
            # setting, and even less for larger batches.
            return tf_keras.optimizers.Adagrad(
                rate, initial_accumulator_value=settings.adagrad_start, epsilon=EPSILON, weight_decay=decay
            )
        case "rowwise_adagrad":
            return RowWiseAdagrad(rate, settings.adagrad_start, decay)
        case "adam":
            return tf_keras.optimizers.Adam(rate, weight_decay=decay)


class RowWiseAdagrad(tf_keras.optimizers.Optimizer):
    """Adagrad with one sum for each row of an embedding table, of the mean squared gradient of the row.

    With g the gradient of a table's row w, and s its sum (other weights are updated as in Adagrad, as rows of one value):

        s <- s + mean(g^2)
        w <- w - learning_rate * g / sqrt(s)

    A row without gradient is not touched. A table of 64 columns needs a 64th of Adagrad's extra memory.

    Args:
        learning_rate: see above.
        start: the initial value of the sums.
        weight_decay: as in Keras's optimizers; None for none.
    """

    def __init__(
        self,
        learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule,
        start: float,
        weight_decay: float | None = None,
        name: str = "RowWiseAdagrad",
    ) -> None:
        super().__init__(name=name, weight_decay=weight_decay)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._start = start

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Create the sums, [rows] for a table and the weight's shape otherwise; called by Keras."""
        super().build(var_list)
        if getattr(self, "_sums", None):
            return
        self._sums = [
            self.add_variable_from_reference(variable, "sum", initial_value=tf.fill(self._shape(variable), self._start))
            for variable in var_list
        ]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        """Override of Keras's method; Keras has summed the entries of a sparse gradient for the same row."""
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
        # The last component of `TABLE:0` or `some_table/TABLE:0`.
        is_table = variable.name.rpartition("/")[2].partition(":")[0] == TABLE
        return variable.shape[:1] if is_table else variable.shape
