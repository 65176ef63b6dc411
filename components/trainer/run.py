"""The Trainer component's user function: reads transformed examples, trains, exports both towers."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from tfx.components.trainer.fn_args_utils import FnArgs

from components.analysis import files
from components.artifacts import SHAPE_PROPERTY
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
from components.trainer.export import JUDGED, export_tower
from components.trainer.inputs import (
    TrainingExamples,
    as_known_on,
    catalogue_inputs,
    known_items,
    looked_up,
    lookup_for_queries,
    lookup_for_training,
    masks_of,
    parsed_bytes,
    uniform_draws,
    with_uniform_items,
)
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.stopping import EarlyStopping, read_held_out
from components.trainer.trained import TrainedTowers
from components.trainer.training import Training, train
from components.transform.model_inputs import ModelInputs
from schemas.errors import PassingError, UserError
from schemas.features import CANDIDATE_ID, SEEN_THROUGH, FeatureSpec

GIB = 1 << 30


def run_fn(fn_args: FnArgs) -> None:
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


def train_and_export(fn_args: FnArgs, devices: strategies.Devices) -> None:
    """What every process of a training does; the chief writes what comes of it.

    Args:
        fn_args: see `run_fn`.
        devices: what to train on.

    Raises:
        UserError: see `run_fn`; or the devices cannot share a batch evenly.
    """
    config = fn_args.custom_config
    spec = FeatureSpec.model_validate_json(config["feature_spec"])
    settings = TrainerSettings.model_validate_json(config["trainer"]).of_run(goes_on=bool(fn_args.base_model))
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    tf_keras.backend.clear_session()  # a backfill trains a model a day in one process
    tf_keras.utils.set_random_seed(settings.seed)
    examples = fn_args.num_examples["train"]
    batch_size = _shared_evenly("examples", min(settings.batch_size, examples), devices)
    uniform_negatives = _shared_evenly("softmax.uniform_negatives", settings.softmax.uniform_negatives, devices)
    rows = files.table_rows(config[ANALYSIS_KEY], spec)
    masks = masks_of(spec, rows)
    catalogue = items = None
    if uniform_negatives:
        # As the newest interactions see them: else a count of the day would tell what is drawn from what was taken.
        whole = catalogue_inputs(config[JUDGED_FILES], spec, transform_output)
        seen, _ = frequencies.count_items(fn_args.train_files, frequencies.step(examples))
        catalogue = known_items(whole, seen, masks, spec.id_features)
    if spec.kept_in_catalogue or spec.looked_up:
        known = [*config[CATALOGUE_FILES], *config[BLOCKED_FILES], *config[EARLIER_FILES]]
        items = catalogue_inputs(known, spec, transform_output, has_versions=bool(config[EARLIER_FILES]))
    lookup = lookup_for_training(spec, items) if items else None

    steps_per_epoch = -(-examples // batch_size)
    fits = examples * parsed_bytes(transform_output) <= settings.kept_gib * GIB
    kept = settings.epochs > 1 and fits and devices.has_weights  # else they are read elsewhere
    training_examples = TrainingExamples(fn_args.train_files, transform_output, batch_size, examples, kept, masks=masks)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        seed = settings.seed + epoch
        draws = None
        if catalogue is not None:
            draws = uniform_draws(catalogue, uniform_negatives, seed, masks).skip(skip)
        return with_uniform_items(looked_up(spec, training_examples.batches(seed, skip), lookup), draws)

    with devices.strategy.scope():
        model = build_model(spec, rows, settings, catalogue[CANDIDATE_ID].shape[0] if catalogue else 0, devices.parts)
        model.compile(
            optimizer=build_optimizer(settings, settings.epochs * steps_per_epoch), jit_compile=settings.jit_compile
        )
        model.make_weights(next(iter(batches(0, 0))))
        state = TrainingState(model)
        if fn_args.base_model:
            warm_start.restore(state, spec, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], fn_args.base_model)
        model.frequency.count_batches_of(batch_size)
        stopping = None
        if settings.early_stopping:
            whole = catalogue_inputs(config[CATALOGUE_FILES], spec, transform_output)
            query_lookup = lookup_for_queries(spec, items) if items else None
            held_out = read_held_out(
                config[HELD_OUT_FILES], spec, transform_output, query_lookup, whole, settings.early_stopping
            )
            stopping = EarlyStopping(settings.early_stopping, held_out, settings.epochs)
    training = Training(batches, steps_per_epoch, settings, config[UNFINISHED], stopping)
    train(model, state, training, fn_args.model_run_dir, devices)
    with devices.written(config[WARM_START]) as folder:
        warm_start.save(state, config[SHAPE_PROPERTY], config[ANALYSIS_KEY], folder)
    if devices.is_chief:
        query_lookup = lookup_for_queries(spec, as_known_on(spec, items, None)) if items else None
        if not devices.has_weights:
            model = TrainedTowers(spec, settings, transform_output, config[WARM_START], query_lookup).model
        frequencies.write(
            fn_args.model_run_dir, model.frequency, fn_args.train_files, examples, batch_size, settings.seed
        )
        for tower, features, looked_up_by, repeat_bonus in (
            (model.query_tower, spec.raw_query, query_lookup, model.repeat_bonus),
            (model.item_tower, spec.item, None, None),
        ):
            transform = ModelInputs(spec, transform_output, looked_up_by)
            export_tower(tower, features, transform, fn_args.serving_model_dir, repeat_bonus)
        if items and SEEN_THROUGH in items and spec.changing_looked_up:
            judged = lookup_for_queries(spec, as_known_on(spec, items, config[JUDGED_DAY]))
            transform = ModelInputs(spec, transform_output, judged)
            folder = f"{fn_args.serving_model_dir}/{JUDGED}"
            export_tower(model.query_tower, spec.raw_query, transform, folder, model.repeat_bonus)
    devices.part()


@contextmanager
def going_away_told() -> Iterator[None]:
    """Tells what TensorFlow says of a process that went away as what it is: worth another try.

    Raises:
        PassingError: another process of the training went away.
    """
    try:
        yield
    except strategies.GONE as error:
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
