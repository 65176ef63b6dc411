"""Transformed examples to batches, and the catalogue to draws from it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf
import tensorflow_transform as tft

from components.transform import raw_features
from components.transform.preprocessing import fingerprint
from schemas.features import CANDIDATE_ID, Feature

SHUFFLE_EXAMPLES = 100_000
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


def training_batches(
    file_patterns: Sequence[str], transform_output: tft.TFTransformOutput, batch_size: int, seed: int, skip: int = 0
) -> tf.data.Dataset:
    """An epoch's shuffled batches of model inputs by name; the same seed always gives the same ones.

    Every batch has exactly `batch_size` rows, as a smaller last one would have fewer negatives; which examples are left over is
    another matter each epoch.

    Args:
        file_patterns: gzipped TFRecords of transformed tf.Examples.
        transform_output: says what is in them.
        batch_size: rows a batch.
        seed: of the order; another for each epoch.
        skip: batches at the beginning that are passed over.
    """
    feature_spec = transform_output.transformed_feature_spec()
    files = tf.data.Dataset.list_files(list(file_patterns), shuffle=True, seed=seed)
    return (
        tf.data.TFRecordDataset(files, compression_type="GZIP")
        .shuffle(SHUFFLE_EXAMPLES, seed=seed)
        .batch(batch_size, drop_remainder=True)
        .skip(skip)
        .map(lambda records: tf.io.parse_example(records, feature_spec), num_parallel_calls=tf.data.AUTOTUNE)
    )


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

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = tf.io.parse_example(examples, {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.string)})
        inputs = transform(raw_features.parse_examples(examples, dict(features)))
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
