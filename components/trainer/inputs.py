"""Transformed examples to batches."""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_transform as tft

SHUFFLE_EXAMPLES = 100_000


def training_batches(
    file_patterns: Sequence[str], transform_output: tft.TFTransformOutput, batch_size: int, seed: int
) -> tf.data.Dataset:
    """An endless stream of shuffled batches of model inputs by name, each epoch in another order.

    Epochs run on into each other, so that every batch has exactly `batch_size` rows: a smaller last one would have fewer
    negatives.

    Args:
        file_patterns: gzipped TFRecords of transformed tf.Examples.
        transform_output: says what is in them.
        batch_size: rows a batch.
        seed: of the order.
    """
    feature_spec = transform_output.transformed_feature_spec()
    files = tf.data.Dataset.list_files(list(file_patterns), shuffle=True, seed=seed)
    return (
        tf.data.TFRecordDataset(files, compression_type="GZIP")
        .shuffle(SHUFFLE_EXAMPLES, seed=seed)
        .repeat()
        .batch(batch_size, drop_remainder=True)
        .map(lambda records: tf.io.parse_example(records, feature_spec), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
