"""The Trainer component's user function: reads transformed examples, trains, exports both towers."""

import os
import time
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx import v1 as tfx

from components.progress import progress
from components.trainer.component import CATALOGUE_FILES
from components.trainer.export import export_tower
from components.trainer.inputs import catalogue_inputs, training_batches, uniform_draws, with_uniform_items
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.settings import TrainerSettings
from components.transform.preprocessing import table_rows
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec

LOSS_CURVE = "loss.csv"
CHECKPOINT = "checkpoint/model"
# Keras starts the sums of squared gradients at 0.1. The gradients of a mean over a batch are far smaller, so the rate would stay a
# hundredth of what is set, and the more so the larger the batch. From nearly nothing, the loss's scale has no say.
ADAGRAD_START = 1e-12
ADAGRAD_EPSILON = 1e-15


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Trains a two-tower model on the training split and exports its towers.

    The checkpoint in the ModelRun artifact holds what the SavedModels do not: the optimizer's slots, the frequency estimator and
    the temperature.

    Args:
        fn_args: TFX's arguments; `custom_config` holds `feature_spec` and `trainer`, both as JSON, and the patterns of the
            `catalogue_files`.

    Raises:
        UserError: there is nothing to train on, or training diverged.
    """
    spec = FeatureSpec.model_validate_json(fn_args.custom_config["feature_spec"])
    settings = TrainerSettings.model_validate_json(fn_args.custom_config["trainer"])
    examples = fn_args.num_examples["train"]
    if not examples:
        raise UserError("The training split is empty: every interaction of the window was held out or dropped.")
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    tf_keras.utils.set_random_seed(settings.seed)
    rows = {name: table_rows(table, name, transform_output) for name, table in spec.tables.items()}
    batch_size = min(settings.batch_size, examples)
    batches = training_batches(fn_args.train_files, transform_output, batch_size, settings.seed)
    draws, catalogue_size = None, 0
    if settings.softmax.uniform_negatives:
        catalogue = catalogue_inputs(fn_args.custom_config[CATALOGUE_FILES], spec.item, transform_output)
        catalogue_size = catalogue[CANDIDATE_ID].shape[0]
        draws = uniform_draws(catalogue, settings.softmax.uniform_negatives, settings.seed)
    model = build_model(spec, rows, settings, catalogue_size)
    train(model, with_uniform_items(batches, draws), max(1, examples // batch_size), settings, fn_args.model_run_dir)
    tf.train.Checkpoint(model=model).write(os.path.join(fn_args.model_run_dir, CHECKPOINT))
    for tower, features in ((model.query_tower, spec.query), (model.item_tower, spec.item)):
        export_tower(tower, features, transform_output, fn_args.serving_model_dir)


def train(
    model: TwoTowerModel, batches: tf.data.Dataset, steps_per_epoch: int, settings: TrainerSettings, log_folder: str
) -> None:
    """Fits the model; the mean loss of every epoch is reported, and written to `log_folder`.

    Raises:
        UserError: the weights are no longer finite.
    """
    tf.io.gfile.makedirs(log_folder)
    model.compile(optimizer=_optimizer(settings))
    model.fit(
        batches,
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=[
            EpochReport(settings.epochs),
            tf_keras.callbacks.CSVLogger(os.path.join(log_folder, LOSS_CURVE)),
            tf_keras.callbacks.TerminateOnNaN(),
        ],
        verbose=0,
    )
    if not all(tf.reduce_all(tf.math.is_finite(weights)) for weights in model.trainable_variables):
        raise UserError(
            "Training diverged: the weights are no longer finite. Lower trainer.learning_rate "
            f"(now {settings.learning_rate}) or raise trainer.softmax.temperature (now {settings.softmax.temperature})."
        )


def _optimizer(settings: TrainerSettings) -> tf_keras.optimizers.Optimizer:
    match settings.optimizer:
        case "adagrad":
            return tf_keras.optimizers.Adagrad(
                settings.learning_rate, initial_accumulator_value=ADAGRAD_START, epsilon=ADAGRAD_EPSILON
            )
        case "adam":
            return tf_keras.optimizers.Adam(settings.learning_rate)


class EpochReport(tf_keras.callbacks.Callback):
    """Says after every epoch how far training is and what the loss was."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras."""
        loss = float((logs or {}).get("loss", float("nan")))
        elapsed = time.monotonic() - self._started
        progress(f"epoch {epoch + 1} of {self._epochs}, loss {loss:.4f}, {elapsed:.0f} s", (epoch + 1) / self._epochs)
