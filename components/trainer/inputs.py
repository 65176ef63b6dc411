"""Transformed examples to batches, and the catalogue to draws from it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_transform as tft

from components.transform import raw_features
from components.transform.preprocessing import fingerprint
from schemas.features import CANDIDATE_ID, REWARD, Feature

WINDOW_EXAMPLES = 100_000
WINDOWS_SHUFFLED = 1_000  # of those that are kept
EXAMPLES_PARSED = 1024  # at once
FILES_SIDE_BY_SIDE = 16
CATALOGUE_BATCH = 4096

Inputs = Mapping[str, tf.Tensor]
"""Model inputs by name, each [rows, ...]; see `components.transform.preprocessing`."""


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
        transform_output: says what is in them; every feature has a fixed shape.
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
        self._spec = transform_output.transformed_feature_spec()
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


def parsed_bytes(transform_output: tft.TFTransformOutput) -> int:
    """What an example takes in memory, in bytes."""
    spec = transform_output.transformed_feature_spec().values()
    return sum(math.prod(feature.shape) * feature.dtype.size for feature in spec)


def catalogue_inputs(
    file_patterns: Sequence[str], features: Mapping[str, Feature], transform_output: tft.TFTransformOutput
) -> dict[str, tf.Tensor]:
    """The item tower's inputs for the whole catalogue, in memory.

    Args:
        file_patterns: gzipped TFRecords of raw catalogue examples.
        features: the item tower's.
        transform_output: the graph that the interactions went through.

    Returns:
        Model inputs by name, and `candidate_id`, each [items, ...].
    """
    transform = transform_output.transform_features_layer()

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = tf.io.parse_example(examples, {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.string)})
        inputs = transform(raw_features.parse_examples(examples, features))
        return {**inputs, CANDIDATE_ID: fingerprint(ids[CANDIDATE_ID])}

    files = tf.data.Dataset.list_files(list(file_patterns), shuffle=False)
    batches = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(CATALOGUE_BATCH)
    parts = [transformed(batch) for batch in batches]
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


def with_uniform_items(batches: tf.data.Dataset, draws: tf.data.Dataset | None) -> tf.data.Dataset:
    """Batches of interactions, each with a draw beside it, as `Batch`."""
    if draws is None:
        return batches.map(lambda interactions: Batch(interactions, {})).prefetch(tf.data.AUTOTUNE)
    return tf.data.Dataset.zip(batches, draws).map(Batch).prefetch(tf.data.AUTOTUNE)
