"""The Trainer component's user function: reads transformed examples, trains, and exports both towers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from components import recorded
from components.trainer import arguments, frequencies, strategies, warm_start
from components.trainer.component import (
    ANALYSIS_KEY,
    BLOCKED_FILES,
    CATALOGUE_FILES,
    EARLIER_FILES,
    HELD_OUT_FILES,
    JUDGED_DAY,
    JUDGED_FILES,
    UNFINISHED,
    WARM_START,
)
from components.trainer.day import Places, TrainingDay
from components.trainer.export import JUDGED, export_tower
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.stopping import EarlyStopping
from components.trainer.trained import TrainedTowers
from components.trainer.training import train
from components.transform.model_inputs import ModelInputs
from schemas.errors import PassingError, UserError
from schemas.features import SEEN_THROUGH, FeatureSpec


def run_fn(fn_args: FnArgs) -> None:
    """Train a two-tower model on the training split, from an earlier day's model if there is one, and export its towers.

    Args:
        fn_args: TFX's arguments; `custom_config` holds `feature_spec` and `trainer`, both as JSON, `shape`, and the additions of
            `components.trainer.component.RetrievalTrainerExecutor`.

    Raises:
        UserError: there is no training data, training diverged, or the earlier model has another shape.
    """
    config = fn_args.custom_config
    settings = TrainerSettings.model_validate_json(config["trainer"])
    if not fn_args.num_examples["train"]:
        raise UserError("The training split is empty: every interaction of the window was held out or dropped.")
    with going_away_told():
        devices = strategies.make(settings.strategy)
        devices.hand_over(arguments.to_json(fn_args))
        train_and_export(fn_args, devices)


def train_and_export(fn_args: FnArgs, devices: strategies.Devices) -> None:
    """Run the part of a training that all processes share; the chief writes the results.

    Args:
        fn_args: see `run_fn`.
        devices: the devices to train on.

    Raises:
        UserError: see `run_fn`; or the devices cannot share a batch evenly.
    """
    config = fn_args.custom_config
    spec = FeatureSpec.model_validate_json(config["feature_spec"])
    settings = TrainerSettings.model_validate_json(config["trainer"]).of_run(goes_on=bool(fn_args.base_model))
    tf_keras.backend.clear_session()  # a backfill trains a model a day in one process
    tf_keras.utils.set_random_seed(settings.seed)
    day = TrainingDay(places_of(fn_args), spec)

    def go_on(state: TrainingState) -> None:
        if fn_args.base_model:
            warm_start.restore(state, spec, config[recorded.SHAPE], config[ANALYSIS_KEY], fn_args.base_model)

    model, state, training = day.training(spec, settings, config[UNFINISHED], devices, go_on)
    if early := settings.early_stopping:
        held_out = day.held_out(config[HELD_OUT_FILES], early.interactions)
        with devices.strategy.scope():
            training = replace(training, stopping=EarlyStopping(early, held_out, settings.epochs))
    train(model, state, training, fn_args.model_run_dir, devices)
    with devices.written(config[WARM_START]) as folder:
        warm_start.save(state, config[recorded.SHAPE], config[ANALYSIS_KEY], folder)
    if devices.is_chief:
        query_lookup = day.lookup_of_queries(None)
        if not devices.has_weights:
            model = TrainedTowers(spec, settings, day.transform_output, config[WARM_START], query_lookup).model
        frequencies.write(
            fn_args.model_run_dir,
            model.frequency,
            fn_args.train_files,
            day.places.examples,
            day.batch_size(settings, devices),
            settings.seed,
        )
        for tower, features, looked_up_by, repeat_bonus in (
            (model.query_tower, spec.raw_query, query_lookup, model.repeat_bonus),
            (model.item_tower, spec.item, None, None),
        ):
            transform = ModelInputs(spec, day.transform_output, looked_up_by)
            export_tower(tower, features, transform, fn_args.serving_model_dir, repeat_bonus)
        if day.items and SEEN_THROUGH in day.items and spec.changing_looked_up:
            transform = ModelInputs(spec, day.transform_output, day.lookup_of_queries(day.places.judged_day))
            folder = f"{fn_args.serving_model_dir}/{JUDGED}"
            export_tower(model.query_tower, spec.raw_query, transform, folder, model.repeat_bonus)
    devices.part()


@contextmanager
def going_away_told() -> Iterator[None]:
    """Turn TensorFlow's "peer went away" errors into a retryable PassingError.

    Raises:
        PassingError: another process of the training went away.
    """
    try:
        yield
    except strategies.GONE as error:
        raise PassingError(
            "Another process of the training went away, or cannot be reached. Start all of them again; training resumes from its "
            f"last checkpoint. TensorFlow says: {error}"
        ) from error


def places_of(fn_args: FnArgs) -> Places:
    """Return where TFX's arguments and the executor's additions say that a day's data lies."""
    config = fn_args.custom_config
    return Places(
        transform_graph=fn_args.transform_output,
        analysis=config[ANALYSIS_KEY],
        train=tuple(fn_args.train_files),
        catalogue=tuple(config[CATALOGUE_FILES]),
        blocked=tuple(config[BLOCKED_FILES]),
        examples=fn_args.num_examples["train"],
        earlier=tuple(config[EARLIER_FILES]),
        judged=tuple(config[JUDGED_FILES]),
        judged_day=config[JUDGED_DAY],
    )
