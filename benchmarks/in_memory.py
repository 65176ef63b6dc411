"""A day's vocabularies, transform and training in this process: the pipeline's own parts, without its steps between them.

A day of the pipeline takes a minute whatever its size, almost all of it the steps' own. Where a benchmark trains a hundred models,
it goes without them: vocabularies are admitted, examples are transformed, tables are moved and models are trained by the functions
that the steps call.
"""

import gc
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from tensorflow_transform import annotators
from tensorflow_transform.graph_context import TFGraphContext

from components.analysis import files, vocabulary
from components.analysis.statistics import MOMENTS, Measure, Moments, count
from components.trainer import warm_start
from components.trainer.epochs import OwnBatches
from components.trainer.inputs import known_items, masked, masks_of, uniform_draws, with_uniform_items
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.training import Training, train
from components.transform import raw_features
from components.transform.catalogue_lookup import Inputs
from components.transform.preprocessing import preprocessing_fn
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

BATCH = 8192


class Transform:
    """Raw examples, of interactions or of items, to model inputs in memory.

    Args:
        spec: the dataset's features.
        analysis: the folder of `components.analysis.files`.
    """

    def __init__(self, spec: FeatureSpec, analysis: str) -> None:
        parsed = {
            CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64, REWARD: tf.float32,
            **raw_features.dtypes(spec.features),
        }  # fmt: skip
        features = {name: tf.io.VarLenFeature(dtype) for name, dtype in parsed.items()}
        told = {"feature_spec": spec.model_dump_json(), "analysis": analysis}

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
        def transformed(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            return preprocessing_fn(tf.io.parse_example(serialized, features), told)

        self._tables = tf.Module()  # keeps the lookup tables, as Transform's own graph does
        with TFGraphContext(self._tables), annotators.object_tracker_scope(annotators.ObjectTracker()):
            self._transformed = transformed.get_concrete_function()

    def __call__(self, serialized: Sequence[bytes]) -> dict[str, tf.Tensor]:
        """Map serialised tf.Examples, at least one, to model inputs, each [examples, ...]."""
        parts = [self._transformed(tf.constant(serialized[n : n + BATCH])) for n in range(0, len(serialized), BATCH)]
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}


def analyse(spec: FeatureSpec, training: Sequence[bytes], base: str | None, span: int, folder: str) -> None:
    """Admit ids and learn scales, as the Analyzer does.

    Args:
        spec: the dataset's features.
        training: serialised tf.Examples of interactions.
        base: the folder of the model that training resumes from; None where it starts anew.
        span: the day, in days since 1970-01-01.
        folder: destination.
    """
    counted: dict[str, list[object]] = {}
    moments: dict[str, Moments] = {}
    counted_through = (files.read_span(base) if base else None) or -1
    measure = Measure(spec, span, counted_through + 1)
    for start in range(0, len(training), BATCH):
        for measured in measure.process(list(training[start : start + BATCH])):
            if getattr(measured, "tag", None) == MOMENTS:
                name, of_batch = measured.value
                moments[name] = moments.get(name, Moments()) + of_batch
            else:
                (table, _), part = measured
                counted.setdefault(table, []).append(part)
    nothing = vocabulary.entries([], []).assign(**{vocabulary.LOOKUPS: 0})
    known = {}
    for name, table in spec.tables.items():
        previous = files.read_known(base, name) if base else vocabulary.Known()
        ids = count(counted[name]).to_pandas().set_index("token") if name in counted else nothing
        days = span - counted_through
        known[name], _ = vocabulary.admit(previous, days, ids, nothing, table.vocabulary, table.hash_buckets)
    scales = {name: (each.mean, each.deviation) for name, each in moments.items()}
    files.write(folder, known, scales | (files.read_scales(base) if base else {}), span)


def trained(
    spec: FeatureSpec,
    settings: TrainerSettings,
    analysis: str,
    training: Inputs,
    catalogue: Inputs,
    base: str | None = None,
    kept: str | None = None,
) -> TwoTowerModel:
    """Train a model by the project's trainer on examples in memory.

    Args:
        spec: which feature feeds which tower.
        settings: the trainer's.
        analysis: the folder of the vocabularies.
        training: model inputs.
        catalogue: the item tower's inputs of all items, from which uniform negatives are drawn.
        base: the folder of the model that training resumes from; None where it starts anew.
        kept: the folder that the next day's training resumes from, to be written.
    """
    settings = settings.of_run(goes_on=base is not None)
    tf_keras.backend.clear_session()  # else the graphs and tables of every model before stay in memory
    gc.collect()
    tf_keras.utils.set_random_seed(settings.seed)
    tables = files.table_rows(analysis, spec)
    masks = masks_of(spec, tables)
    known = known_items(catalogue, training[CANDIDATE_ID].numpy(), masks, spec.id_features)
    model = build_model(spec, tables, settings, known[CANDIDATE_ID].shape[0])
    examples = training[CANDIDATE_ID].shape[0]
    batch_size = min(settings.batch_size, examples)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        seed = settings.seed + epoch
        rows = np.random.default_rng(seed).permutation(examples)[: examples - examples % batch_size]
        epoch_inputs = masked({name: tf.gather(values, rows) for name, values in training.items()}, masks, seed, 0)
        order = tf.data.Dataset.from_tensor_slices(epoch_inputs).batch(batch_size, drop_remainder=True)
        draws = None
        if settings.softmax.uniform_negatives:
            draws = uniform_draws(known, settings.softmax.uniform_negatives, seed, masks, skip)
        return with_uniform_items(order.skip(skip), draws)

    model.compile(optimizer=build_optimizer(settings, settings.epochs * (examples // batch_size)))
    model.make_weights(next(iter(batches(0, 0))))
    state, shape = TrainingState(model), warm_start.shape(spec, settings)
    if base:
        warm_start.restore(state, spec, shape, analysis, base)
    with tempfile.TemporaryDirectory() as folder:
        steps = Training(OwnBatches(batches), examples // batch_size, settings, f"{folder}/unfinished")
        train(model, state, steps, folder, one_device())
    if kept:
        warm_start.save(state, shape, analysis, kept)
    return model


def embedded(
    model: TwoTowerModel, queries: Mapping[str, tf.Tensor], items: Mapping[str, tf.Tensor]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed model inputs to [queries, width] and [items, width]."""
    return model.query_tower(queries).numpy(), model.item_tower(items).numpy()
