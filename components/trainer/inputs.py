"""Transformed examples to batches, and the catalogue to draws from it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_transform as tft

from components.transform import raw_features
from components.transform.catalogue_lookup import (
    CatalogueLookup,
    Inputs,
    inputs_of_candidates,
    inputs_of_query_items,
)
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import fingerprint
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

WINDOW_EXAMPLES = 100_000
WINDOWS_SHUFFLED = 1_000  # of those that are kept
EXAMPLES_PARSED = 1024  # at once
FILES_SIDE_BY_SIDE = 16
CATALOGUE_BATCH = 4096


class Batch(NamedTuple):
    """What a training step is given.

    Attributes:
        interactions: the model inputs of both towers, the rewards and the candidates' ids.
        uniform_items: the item tower's inputs and the ids of items drawn uniformly from the catalogue; empty where none are.
    """

    interactions: Inputs
    uniform_items: Inputs


class TrainingExamples:
    """The training split, in shuffled batches of model inputs by name.

    Shuffling examples one by one costs more than reading them, and parsing one by one many times as much. So examples are read and
    parsed by the thousand, files taking turns, and the rows of a window of some 100,000 are put into another order at once. Windows
    too are, those of an epoch by the order of files, or of windows where they are kept.

    Args:
        file_patterns: gzipped TFRecords of transformed tf.Examples.
        transform_output: says what is in them; features without a fixed shape are not read, as interactions lack them.
        batch_size: rows a batch.
        kept: whether the first epoch leaves them in memory for the others; see `parsed_bytes`.
        window: examples that are shuffled among each other, or somewhat more.
    """

    def __init__(
        self,
        file_patterns: Sequence[str],
        transform_output: tft.TFTransformOutput,
        batch_size: int,
        kept: bool = False,
        window: int = WINDOW_EXAMPLES,
    ) -> None:
        self._patterns = list(file_patterns)
        self._spec = fixed_features(transform_output)
        self._batch_size = batch_size
        self._window = -(-window // batch_size) * batch_size  # whole batches, so that each is a slice
        self._kept = self._windows(seed=0).cache() if kept else None

    def batches(self, seed: int, skip: int = 0) -> tf.data.Dataset:
        """An epoch's batches; the same seed always gives the same ones.

        Every batch has exactly `batch_size` rows, as a smaller last one would have fewer negatives; which examples are left over is
        another matter each epoch.

        Args:
            seed: of the order; another for each epoch.
            skip: batches at the beginning that are passed over.
        """
        windows = self._windows(seed) if self._kept is None else self._kept.shuffle(WINDOWS_SHUFFLED, seed=seed)

        def shuffled(number: tf.Tensor, window: Inputs) -> dict[str, tf.Tensor]:
            order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(window[REWARD])[0]), [seed, number])
            return {name: tf.gather(values, order) for name, values in window.items()}

        return windows.enumerate().map(shuffled).rebatch(self._batch_size, drop_remainder=True).skip(skip)

    def _windows(self, seed: int) -> tf.data.Dataset:
        files = tf.data.Dataset.list_files(self._patterns, shuffle=True, seed=seed)
        records = files.interleave(
            lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP").batch(EXAMPLES_PARSED),
            cycle_length=FILES_SIDE_BY_SIDE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        parsed = records.map(
            lambda batch: tf.io.parse_example(batch, self._spec),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return parsed.rebatch(self._window)


def fixed_features(transform_output: tft.TFTransformOutput) -> dict[str, tf.io.FixedLenFeature]:
    """What of transformed examples has a fixed shape: all that interactions have."""
    spec = transform_output.transformed_feature_spec()
    return {name: each for name, each in spec.items() if isinstance(each, tf.io.FixedLenFeature)}


def parsed_bytes(transform_output: tft.TFTransformOutput) -> int:
    """What an example takes in memory, in bytes."""
    return sum(math.prod(each.shape) * each.dtype.size for each in fixed_features(transform_output).values())


def catalogue_inputs(
    file_patterns: Sequence[str], spec: FeatureSpec, transform_output: tft.TFTransformOutput
) -> dict[str, tf.Tensor]:
    """The item tower's inputs for all items of a catalogue, in memory.

    Args:
        file_patterns: gzipped TFRecords of raw catalogue examples.
        spec: the dataset's features.
        transform_output: the graph that the interactions went through.

    Returns:
        Model inputs by name, and `candidate_id`, each [items, ...].
    """
    transform = ModelInputs(spec, transform_output)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = tf.io.parse_example(examples, {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.string)})
        inputs = transform(raw_features.parse_examples(examples, spec.item))
        return {**inputs, CANDIDATE_ID: fingerprint(ids[CANDIDATE_ID])}

    files = [path for pattern in file_patterns for path in sorted(tf.io.gfile.glob(pattern))]
    batches = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(CATALOGUE_BATCH)
    parts = [transformed(batch) for batch in batches] or [transformed(tf.constant([], tf.string))]
    return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}


def uniform_draws(catalogue: Inputs, draws: int, seed: int) -> tf.data.Dataset:
    """An endless stream of items drawn uniformly, with replacement.

    Args:
        catalogue: see `catalogue_inputs`.
        draws: items an element.
        seed: of the draws.
    """
    items = tf.cast(tf.shape(catalogue[CANDIDATE_ID])[0], tf.int64)

    def drawn(random: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.bitwise.right_shift(random * items, tf.constant(32, tf.int64))  # random is uniform below 2^32
        return {name: tf.gather(values, rows) for name, values in catalogue.items()}

    return tf.data.Dataset.random(seed=seed).batch(draws, drop_remainder=True).map(drawn)


def lookup_for_training(spec: FeatureSpec, items: Inputs) -> CatalogueLookup:
    """What interactions do not repeat of their items.

    Args:
        spec: the dataset's features.
        items: see `catalogue_inputs`; all that are known, blocked ones too.
    """
    return CatalogueLookup({*inputs_of_candidates(spec), *inputs_of_query_items(spec)}, items)


def lookup_for_queries(spec: FeatureSpec, items: Inputs) -> CatalogueLookup | None:
    """What the exported query tower looks up, in variables of its own; None where that is nothing. For `items` see above."""
    names = inputs_of_query_items(spec)
    return CatalogueLookup(names, items, lambda values: tf.Variable(values, trainable=False)) if names else None


def looked_up(spec: FeatureSpec, batches: tf.data.Dataset, lookup: CatalogueLookup | None) -> tf.data.Dataset:
    """Batches of interactions with all inputs of both towers, those from the catalogue too."""
    if lookup is None:
        return batches

    def complete(batch: Inputs) -> dict[str, tf.Tensor]:
        return {**batch, **lookup(batch[CANDIDATE_ID], inputs_of_candidates(spec)), **lookup.of_query(spec, batch)}

    return batches.map(complete)


def with_uniform_items(batches: tf.data.Dataset, draws: tf.data.Dataset | None) -> tf.data.Dataset:
    """Batches of interactions, each with a draw beside it, as `Batch`."""
    if draws is None:
        return batches.map(lambda interactions: Batch(interactions, {})).prefetch(tf.data.AUTOTUNE)
    return tf.data.Dataset.zip(batches, draws).map(Batch).prefetch(tf.data.AUTOTUNE)
