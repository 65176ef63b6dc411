"""The Trainer component's user function: reads transformed examples, trains, exports both towers."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx import v1 as tfx
from tfx.utils import io_utils

from components.analysis import files
from components.artifacts import SHAPE_PROPERTY
from components.progress import progress
from components.trainer import frequencies, warm_start
from components.trainer.component import ANALYSIS_KEY, CATALOGUE_FILES, UNFINISHED, WARM_START
from components.trainer.export import export_tower
from components.trainer.inputs import (
    TrainingExamples,
    catalogue_inputs,
    parsed_bytes,
    uniform_draws,
    with_uniform_items,
)
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.names import LOSS_CURVE
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec

GIB = 1 << 30
ADAGRAD_EPSILON = 1e-15  # added to the sums of squared gradients, so far below where they start


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Trains a two-tower model on the training split, from an earlier day's where there is one, and exports its towers.

    Args:
        fn_args: TFX's arguments; `custom_config` holds `feature_spec` and `trainer`, both as JSON, `shape`, and what
            `components.trainer.component.RetrievalTrainerExecutor` adds.

    Raises:
        UserError: there is nothing to train on, training diverged, or the earlier model has another shape.
    """
    config = fn_args.custom_config
    spec = FeatureSpec.model_validate_json(config["feature_spec"])
    settings = TrainerSettings.model_validate_json(config["trainer"])
    examples = fn_args.num_examples["train"]
    if not examples:
        raise UserError("The training split is empty: every interaction of the window was held out or dropped.")
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    tf_keras.backend.clear_session()  # a backfill trains a model a day in one process
    tf_keras.utils.set_random_seed(settings.seed)
    batch_size = min(settings.batch_size, examples)
    catalogue = None
    if settings.softmax.uniform_negatives:
        catalogue = catalogue_inputs(config[CATALOGUE_FILES], spec.item, transform_output)

    kept = settings.epochs > 1 and examples * parsed_bytes(transform_output) <= settings.kept_gib * GIB
    training_examples = TrainingExamples(fn_args.train_files, transform_output, batch_size, kept)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        seed = settings.seed + epoch
        draws = None
        if catalogue is not None:
            draws = uniform_draws(catalogue, settings.softmax.uniform_negatives, seed).skip(skip)
        return with_uniform_items(training_examples.batches(seed, skip), draws)

    rows = files.table_rows(config[ANALYSIS_KEY], spec)
    model = build_model(spec, rows, settings, catalogue[CANDIDATE_ID].shape[0] if catalogue else 0)
    model.compile(optimizer=build_optimizer(settings), jit_compile=settings.jit_compile)
    model.compute_loss(next(iter(batches(0, 0))))  # makes the layers' weights
    state = TrainingState(model)
    if fn_args.base_model:
        warm_start.restore(state, spec, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], fn_args.base_model)
    training = Training(batches, examples // batch_size, settings, config[UNFINISHED])
    train(model, state, training, fn_args.model_run_dir)
    frequencies.write(fn_args.model_run_dir, model.frequency, fn_args.train_files, examples, batch_size, settings.seed)
    warm_start.save(state, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], config[WARM_START])
    for tower, features in ((model.query_tower, spec.query), (model.item_tower, spec.item)):
        export_tower(tower, features, transform_output, fn_args.serving_model_dir)


@dataclass(frozen=True)
class Training:
    """What is trained on, how long, and how often it is written down.

    Attributes:
        batches: an epoch's batches, from its number and how many of them are passed over.
        steps_per_epoch: batches an epoch.
        settings: epochs, and the steps between checkpoints.
        unfinished: where the checkpoints on the way are; the same for every attempt at the same training.
    """

    batches: Callable[[int, int], tf.data.Dataset]
    steps_per_epoch: int
    settings: TrainerSettings
    unfinished: str


def train(model: TwoTowerModel, state: TrainingState, training: Training, log_folder: str) -> None:
    """Fits the model, or goes on where a killed attempt was; the loss of every epoch is reported, and written to `log_folder`.

    Raises:
        UserError: the loss or the weights are no longer finite.
    """
    settings = training.settings
    curve = LossCurve(training.steps_per_epoch, settings)
    first_step = int(model.optimizer.iterations)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(state=state.checkpoint, losses=curve.totals), training.unfinished, max_to_keep=1
    )
    if manager.restore_or_initialize():
        progress(f"goes on from step {_steps(model, first_step)} of an attempt that did not end", 0.0)
    start, skip = divmod(_steps(model, first_step), training.steps_per_epoch)
    for epoch in range(start, settings.epochs):
        model.fit(
            training.batches(epoch, skip),
            initial_epoch=epoch,
            epochs=epoch + 1,
            steps_per_epoch=training.steps_per_epoch - skip,
            callbacks=[curve, WriteDown(manager, settings.checkpoint_steps)],  # in this order
            verbose=0,
        )
        skip = 0
    if not all(tf.reduce_all(tf.math.is_finite(weights)) for weights in model.trainable_variables):
        raise _diverged(settings)
    curve.write(log_folder)


def _steps(model: TwoTowerModel, first_step: int) -> int:
    return int(model.optimizer.iterations) - first_step


def build_optimizer(settings: TrainerSettings) -> tf_keras.optimizers.Optimizer:
    """The optimizer of a configuration."""
    match settings.optimizer:
        case "adagrad":
            # Keras starts at 0.1, beside which the gradients of a mean over a batch are nothing: the rate would stay a hundredth of
            # what is set, and the more so the larger the batch.
            return tf_keras.optimizers.Adagrad(
                settings.learning_rate, initial_accumulator_value=settings.adagrad_start, epsilon=ADAGRAD_EPSILON
            )
        case "adam":
            return tf_keras.optimizers.Adam(settings.learning_rate)


class LossCurve(tf_keras.callbacks.Callback):
    """The mean loss of every epoch, steps of killed attempts included; reports it after each.

    Attributes:
        totals: [epochs] float64, the sum of the losses of each epoch's steps; goes into checkpoints.
    """

    def __init__(self, steps_per_epoch: int, settings: TrainerSettings) -> None:
        super().__init__()
        self.totals = tf.Variable(tf.zeros([settings.epochs], tf.float64))
        self._steps_per_epoch = steps_per_epoch
        self._settings = settings
        self._started = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        self._epoch = epoch
        self._before = float(self.totals[epoch])

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras, with the mean loss since training went on with this epoch."""
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise _diverged(self._settings)
        self.totals[self._epoch].assign(self._before + loss * (batch + 1))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        epochs, elapsed = self._settings.epochs, time.monotonic() - self._started
        progress(
            f"epoch {epoch + 1} of {epochs}, loss {self._means()[epoch]:.4f}, {elapsed:.0f} s", (epoch + 1) / epochs
        )

    def write(self, folder: str) -> None:
        """Leaves `loss.csv` with a row an epoch."""
        rows = [f"{epoch},{loss}" for epoch, loss in enumerate(self._means())]
        io_utils.write_string_file(os.path.join(folder, LOSS_CURVE), "\n".join(["epoch,loss", *rows, ""]))

    def _means(self) -> list[float]:
        means: list[float] = (self.totals.numpy() / self._steps_per_epoch).tolist()
        return means


class WriteDown(tf_keras.callbacks.Callback):
    """Saves a checkpoint every so many steps."""

    def __init__(self, manager: tf.train.CheckpointManager, steps: int) -> None:
        super().__init__()
        self._manager = manager
        self._steps = steps

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        step = int(self.model.optimizer.iterations)
        if step % self._steps == 0:
            self._manager.save(checkpoint_number=step)


def _diverged(settings: TrainerSettings) -> UserError:
    return UserError(
        "Training diverged: the loss or the weights are no longer finite. Lower trainer.learning_rate "
        f"(now {settings.learning_rate}) or raise trainer.softmax.temperature (now {settings.softmax.temperature})."
    )
