"""The Trainer component's user function: reads transformed examples, trains, exports both towers."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx import v1 as tfx
from tfx.utils import io_utils

from components.analysis import files
from components.artifacts import SHAPE_PROPERTY
from components.progress import progress
from components.trainer import arguments, strategies, warm_start
from components.trainer.component import ANALYSIS_KEY, CATALOGUE_FILES, UNFINISHED, WARM_START
from components.trainer.export import export_tower
from components.trainer.inputs import catalogue_inputs, training_batches, uniform_draws, with_uniform_items
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.trained import TrainedTowers
from schemas.errors import PassingError, UserError
from schemas.features import CANDIDATE_ID, FeatureSpec

LOSS_CURVE = "loss.csv"


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Trains a two-tower model on the training split, from an earlier day's where there is one, and exports its towers.

    Args:
        fn_args: TFX's arguments; `custom_config` holds `feature_spec` and `trainer`, both as JSON, `shape`, and what
            `components.trainer.component.RetrievalTrainerExecutor` adds.

    Raises:
        UserError: there is nothing to train on, training diverged, or the earlier model has another shape.
    """
    config = fn_args.custom_config
    settings = TrainerSettings.model_validate_json(config["trainer"])
    if not fn_args.num_examples["train"]:
        raise UserError("The training split is empty: every interaction of the window was held out or dropped.")
    with going_away_told():
        devices = strategies.make(settings.strategy)
        devices.hand_over(arguments.to_json(fn_args))
        train_and_export(fn_args, devices)


def train_and_export(fn_args: tfx.components.FnArgs, devices: strategies.Devices) -> None:
    """What every process of a training does; the chief writes what comes of it.

    Args:
        fn_args: see `run_fn`.
        devices: what to train on.

    Raises:
        UserError: see `run_fn`; or the devices cannot share a batch evenly.
    """
    config = fn_args.custom_config
    spec = FeatureSpec.model_validate_json(config["feature_spec"])
    settings = TrainerSettings.model_validate_json(config["trainer"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    tf_keras.backend.clear_session()  # a backfill trains a model a day in one process
    tf_keras.utils.set_random_seed(settings.seed)
    examples = fn_args.num_examples["train"]
    batch_size = _shared_evenly("examples", min(settings.batch_size, examples), devices)
    uniform_negatives = _shared_evenly("softmax.uniform_negatives", settings.softmax.uniform_negatives, devices)
    catalogue = None
    if uniform_negatives:
        catalogue = catalogue_inputs(config[CATALOGUE_FILES], spec.item, transform_output)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        seed = settings.seed + epoch
        draws = None
        if catalogue is not None:
            draws = uniform_draws(catalogue, uniform_negatives, seed).skip(skip)
        return with_uniform_items(
            training_batches(fn_args.train_files, transform_output, batch_size, seed, skip), draws
        )

    with devices.strategy.scope():
        rows = files.table_rows(config[ANALYSIS_KEY], spec)
        model = build_model(spec, rows, settings, catalogue[CANDIDATE_ID].shape[0] if catalogue else 0, devices.parts)
        model.compile(optimizer=build_optimizer(settings))
        model.compute_loss(next(iter(batches(0, 0))))  # makes the layers' weights
        state = TrainingState(model)
        if fn_args.base_model:
            warm_start.restore(state, spec, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], fn_args.base_model)
    training = Training(batches, examples // batch_size, settings, config[UNFINISHED])
    train(model, state, training, fn_args.model_run_dir, devices)
    if devices.is_chief:
        warm_start.save(state, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], config[WARM_START])
        if not devices.has_weights:
            model = TrainedTowers(spec, settings, fn_args.transform_output, config[WARM_START]).model
        for tower, features in ((model.query_tower, spec.query), (model.item_tower, spec.item)):
            export_tower(tower, features, transform_output, fn_args.serving_model_dir)
    devices.hand_over("")  # a process that ends takes the others with it


@contextmanager
def going_away_told() -> Iterator[None]:
    """Tells what TensorFlow says of a process that went away as what it is: worth another try.

    Raises:
        PassingError: another process of the training went away.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError) as error:
        raise PassingError(
            "Another process of the training went away, or cannot be reached. All of them are to be started again; training goes "
            f"on from its last checkpoint. TensorFlow says: {error}"
        ) from error


def _shared_evenly(name: str, rows: int, devices: strategies.Devices) -> int:
    """So many rows, or somewhat fewer, so that each replica has as many."""
    shared = rows - rows % devices.replicas
    if rows and not shared:
        raise UserError(
            f"trainer.strategy: expected at least one of {rows} {name} for each of {devices.replicas} replicas."
        )
    return shared


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


def train(
    model: TwoTowerModel, state: TrainingState, training: Training, log_folder: str, devices: strategies.Devices
) -> None:
    """Fits the model, or goes on where a killed attempt was; the loss of every epoch is reported, and written to `log_folder`.

    Not by Keras's `fit`, which with parameter servers says nothing between epochs.

    Args:
        model: made and compiled in the scope of the devices' strategy.
        state: the model's.
        training: what to train on, and how long.
        log_folder: where the chief writes.
        devices: what to train on.

    Raises:
        UserError: the loss or the weights are no longer finite.
    """
    settings = training.settings
    curve = LossCurve(training.steps_per_epoch, settings)
    first_step = int(model.optimizer.iterations)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(state=state.checkpoint, losses=curve.totals), training.unfinished, max_to_keep=1
    )
    with devices.strategy.scope():
        if manager.restore_or_initialize():
            progress(f"goes on from step {_steps(model, first_step)} of an attempt that did not end", 0.0)
        start, skip = divmod(_steps(model, first_step), training.steps_per_epoch)
        step = model.make_train_function()
        for epoch in range(start, settings.epochs):
            feed = devices.feed(partial(training.batches, epoch, skip))
            while skip < training.steps_per_epoch:
                until_checkpoint = (
                    settings.checkpoint_steps - int(model.optimizer.iterations) % settings.checkpoint_steps
                )
                steps = min(until_checkpoint, training.steps_per_epoch - skip)
                model.reset_metrics()
                devices.run(step, feed, steps)
                curve.add(epoch, model.mean_loss(), steps)
                skip += steps
                if steps == until_checkpoint and devices.is_chief:
                    manager.save(checkpoint_number=int(model.optimizer.iterations))
            curve.report(epoch)
            skip = 0
        if not all(tf.reduce_all(tf.math.is_finite(weights)) for weights in model.trainable_variables):
            raise _diverged(settings)
    if devices.is_chief:
        curve.write(log_folder)


def _steps(model: TwoTowerModel, first_step: int) -> int:
    return int(model.optimizer.iterations) - first_step


class LossCurve:
    """The mean loss of every epoch, steps of killed attempts included.

    Args:
        steps_per_epoch: steps an epoch.
        settings: the epochs, and what is said where the loss is no number.

    Attributes:
        totals: [epochs] float64, the sum of the losses of each epoch's steps; goes into checkpoints.
    """

    def __init__(self, steps_per_epoch: int, settings: TrainerSettings) -> None:
        self.totals = tf.Variable(tf.zeros([settings.epochs], tf.float64))
        self._steps_per_epoch = steps_per_epoch
        self._settings = settings
        self._started = time.monotonic()

    def add(self, epoch: int, loss: float, steps: int) -> None:
        """Adds the mean loss of some of an epoch's steps.

        Raises:
            UserError: it is not finite.
        """
        if not math.isfinite(loss):
            raise _diverged(self._settings)
        self.totals.scatter_add(tf.IndexedSlices(tf.constant(loss * steps, tf.float64), epoch))

    def report(self, epoch: int) -> None:
        """Tells whoever watches of an epoch's end."""
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


def _diverged(settings: TrainerSettings) -> UserError:
    return UserError(
        "Training diverged: the loss or the weights are no longer finite. Lower trainer.learning_rate "
        f"(now {settings.learning_rate}) or raise trainer.softmax.temperature (now {settings.softmax.temperature})."
    )
