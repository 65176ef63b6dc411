"""The training loop: steps, intermediate checkpoints, and the loss of every epoch."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tfx.utils import io_utils

from components.progress import progress
from components.trainer.epochs import Epochs
from components.trainer.model import TwoTowerModel
from components.trainer.names import LOSS_CURVE
from components.trainer.optimizers import begin_run
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.stopping import EarlyStopping
from components.trainer.strategies import Devices
from schemas.errors import UserError

TAKEN = "taken/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class Training:
    """Data, length and checkpoint interval of a training run.

    Attributes:
        epochs: the batches of each epoch.
        steps_per_epoch: batches in an epoch.
        settings: epochs, and the steps between checkpoints.
        unfinished: the folder of intermediate checkpoints; the same for every attempt at the same training.
        stopping: ends training early, and chooses the epoch whose model is kept; None trains all epochs.
        batch_size: rows of a global batch; 0 if it is always the same.
    """

    epochs: Epochs
    steps_per_epoch: int
    settings: TrainerSettings
    unfinished: str
    stopping: EarlyStopping | None = None
    batch_size: int = 0


def train(
    model: TwoTowerModel,
    state: TrainingState,
    training: Training,
    log_folder: str,
    devices: Devices,
    is_enough: Callable[[int], bool] = lambda epoch: False,
) -> None:
    """Fit the model, or resume a killed attempt; report the loss of every epoch, and write it to `log_folder`.

    Keras's `fit` is not used, because with parameter servers it reports nothing between epochs.

    Args:
        model: made and compiled in the scope of the devices' strategy.
        state: the model's state.
        training: data and length of the training.
        log_folder: the folder that the chief writes to.
        devices: the devices to train on.
        is_enough: called after each epoch with its number from 0; whether it was the last.

    Raises:
        UserError: the loss or the weights are no longer finite.
    """
    settings = training.settings
    curve = LossCurve(training.steps_per_epoch, settings)
    begin_run(model.optimizer)
    stopping = training.stopping
    position = Position(training, devices)
    saved_recalls = {"recalls": stopping.recalls} if stopping else {}
    checkpoint = tf.train.Checkpoint(state=state.checkpoint, losses=curve.totals, **position.variables, **saved_recalls)
    earlier = _earlier(training.unfinished)
    with devices.strategy.scope(), devices.written(training.unfinished) as folder:
        manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1)
        if earlier:
            checkpoint.restore(earlier)
            position.resume(curve)
        start, skip = position.epoch_and_skip()
        step = model.make_train_function()
        for epoch in range(start, settings.epochs):
            if stopping and stopping.is_over:
                break
            recall = None
            feed = devices.feed(training.epochs, epoch, skip, position.division(skip))
            while skip < training.steps_per_epoch:
                until_checkpoint = (
                    settings.checkpoint_steps - int(model.optimizer.iterations.numpy()) % settings.checkpoint_steps
                )
                steps = min(until_checkpoint, training.steps_per_epoch - skip)
                model.reset_metrics()
                feed.take(step, steps)
                curve.add(epoch, model.mean_loss(), steps)
                skip += steps
                position.taken.assign_add(steps)
                if stopping and skip == training.steps_per_epoch:
                    recall = stopping.judge(model, state, epoch, folder)
                if steps == until_checkpoint or recall is not None:
                    manager.save(checkpoint_number=int(model.optimizer.iterations.numpy()))
            if stopping:
                stopping.forget_others(folder)
            curve.report(epoch, recall)
            skip = 0
            if is_enough(epoch):
                break
        if not all(tf.reduce_all(tf.math.is_finite(weights)) for weights in model.trainable_variables):
            raise _diverged(settings)
        if stopping:
            stopping.restore_best(state, folder)
    if devices.is_chief:
        curve.write(log_folder, stopping.recalls.numpy()[: stopping.epochs].tolist() if stopping else None)


class Position:
    """How far the attempts at a training have come; saved in their checkpoints.

    Args:
        training: this attempt's.
        devices: this attempt's.

    Attributes:
        taken: int64, the steps taken; the optimizer's number also counts those that a lost worker's task took twice.
        variables: by their names in a checkpoint.
    """

    def __init__(self, training: Training, devices: Devices) -> None:
        self._training = training
        self._own_division = devices.division(training.settings, training.steps_per_epoch)
        numbers = (0, self._own_division, training.batch_size, training.steps_per_epoch)
        variables = [tf.Variable(number, dtype=tf.int64) for number in numbers]
        self.taken, self._division, self._batch_size, self._steps_per_epoch = variables
        names = ("taken", devices.divided, "batch_size", "steps_per_epoch")
        self.variables = dict(zip(names, variables, strict=True))

    def resume(self, curve: "LossCurve") -> None:
        """Go on with what was restored; with other batches the epoch begins again."""
        progress(f"resumes an interrupted attempt from step {self.taken.numpy()}", 0.0)
        before, now = int(self._batch_size.numpy()), self._training.batch_size
        if before != now:
            progress(f"its batches had {before} examples, not {now}: its epoch begins again", 0.0)
            steps_before = int(self._steps_per_epoch.numpy())
            epoch = int(self.taken.numpy()) // steps_before
            curve.begin_again(epoch, steps_before)
            self.taken.assign(epoch * self._training.steps_per_epoch)
            self._batch_size.assign(now)
            self._steps_per_epoch.assign(self._training.steps_per_epoch)

    def epoch_and_skip(self) -> tuple[int, int]:
        """Return the epoch to go on with, and its steps that were taken."""
        return divmod(int(self.taken.numpy()), self._training.steps_per_epoch)

    def division(self, skip: int) -> int:
        """Return how an epoch is divided: as the attempt did that took the first `skip` steps, else as these devices do."""
        if not skip:
            self._division.assign(self._own_division)
        return int(self._division.numpy())


def _earlier(unfinished: str) -> str | None:
    """Return the last checkpoint of an attempt; None without one, or if it is of a version that did not count its steps."""
    earlier = tf.train.latest_checkpoint(unfinished)
    if earlier and not tf.train.load_checkpoint(earlier).has_tensor(TAKEN):
        progress("begins again: the interrupted attempt is of an earlier version, which did not count its steps", 0.0)
        return None
    return earlier


class LossCurve:
    """The mean loss of every epoch, including steps of killed attempts.

    Args:
        steps_per_epoch: steps in an epoch.
        settings: the epochs, and values for the message if the loss is not finite.

    Attributes:
        totals: [epochs] float64, the sum of the losses of each epoch's steps; saved in checkpoints.
    """

    def __init__(self, steps_per_epoch: int, settings: TrainerSettings) -> None:
        self.totals = tf.Variable(tf.zeros([settings.epochs], tf.float64))
        self._steps_per_epoch = steps_per_epoch
        self._settings = settings
        self._started = time.monotonic()

    def add(self, epoch: int, loss: float, steps: int) -> None:
        """Add the mean loss of some of an epoch's steps.

        Raises:
            UserError: it is not finite.
        """
        if not math.isfinite(loss):
            raise _diverged(self._settings)
        self.totals.scatter_add(tf.IndexedSlices(tf.constant(loss * steps, tf.float64), epoch))

    def begin_again(self, epoch: int, steps_before: int) -> None:
        """Forget the steps of an epoch; those before it had another number of steps."""
        self.totals.assign(self.totals * (self._steps_per_epoch / steps_before))
        self.totals.scatter_update(tf.IndexedSlices(tf.constant(0.0, tf.float64), epoch))

    def report(self, epoch: int, recall: float | None = None) -> None:
        """Report the end of an epoch, with the held-out recall if it was measured."""
        epochs, elapsed = self._settings.epochs, time.monotonic() - self._started
        of_held_out = "" if recall is None else f", held-out recall {recall:.4f}"
        progress(
            f"epoch {epoch + 1} of {epochs}, loss {self._means()[epoch]:.4f}{of_held_out}, {elapsed:.0f} s",
            (epoch + 1) / epochs,
        )

    def write(self, folder: str, recalls: Sequence[float] | None = None) -> None:
        """Write `loss.csv` with a row for each epoch; with recalls if they were measured."""
        losses = [f"{epoch},{loss}" for epoch, loss in enumerate(self._means())]
        rows = ["epoch,loss", *losses]
        if recalls is not None:
            rows = ["epoch,loss,recall", *(f"{line},{recall}" for line, recall in zip(losses, recalls, strict=False))]
        io_utils.write_string_file(os.path.join(folder, LOSS_CURVE), "\n".join([*rows, ""]))

    def _means(self) -> list[float]:
        return (self.totals.numpy() / self._steps_per_epoch).tolist()


def _diverged(settings: TrainerSettings) -> UserError:
    return UserError(
        "Training diverged: the loss or the weights are no longer finite. Lower trainer.learning_rate "
        f"(now {settings.learning_rate}) or raise trainer.softmax.temperature (now {settings.softmax.temperature})."
    )
