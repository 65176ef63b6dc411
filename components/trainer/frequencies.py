"""Writes a file for people that compares estimated item frequencies with those counted in the training split."""

import io
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from tfx.utils import io_utils

from components.trainer.frequency import FrequencyEstimator
from components.trainer.names import COUNTED, ESTIMATED, FREQUENCIES
from schemas.features import CANDIDATE_ID

MOST_EXAMPLES = 1 << 20
HEAD, SAMPLE = 500, 1500  # items
READ_BATCH = 8192


def write(
    folder: str, estimator: FrequencyEstimator, file_patterns: Sequence[str], examples: int, batch_size: int, seed: int
) -> None:
    """Write `frequencies.parquet`: `counted` and `estimated`, the number of an item in a batch, a row for each item.

    In large splits every n-th example is counted. The file holds the most frequent items, and a random sample of the others.

    Args:
        folder: destination.
        estimator: the trained model's estimator.
        file_patterns: gzipped TFRecords of transformed tf.Examples.
        examples: the number of examples in them.
        batch_size: rows of a training batch.
        seed: of the random sample.
    """
    ids, counts = count_items(file_patterns, step(examples))
    positions = head_and_sample(counts, HEAD, SAMPLE, seed)
    frame = pd.DataFrame(
        {
            COUNTED: counts[positions] * (batch_size / counts.sum()),
            ESTIMATED: estimator.estimate(tf.constant(ids[positions])).numpy(),
        }
    )
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    io_utils.write_bytes_file(os.path.join(folder, FREQUENCIES), content.getvalue())


def step(examples: int) -> int:
    """Return n such that every n-th example of a split is counted, at most `MOST_EXAMPLES`."""
    return -(-examples // MOST_EXAMPLES)


def count_items(file_patterns: Sequence[str], step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count each item in every `step`-th example.

    Returns:
        [items] item ids as the model has them, ascending, and [items] counts.
    """
    files = tf.data.Dataset.list_files(list(file_patterns), shuffle=False)
    batches = tf.data.TFRecordDataset(files, compression_type="GZIP").shard(step, 0).batch(READ_BATCH)
    spec = {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.int64)}
    parsed = tf.autograph.experimental.do_not_convert(lambda records: tf.io.parse_example(records, spec))
    ids = [batch[CANDIDATE_ID].numpy() for batch in batches.map(parsed)]
    return np.unique(np.concatenate(ids), return_counts=True)


def head_and_sample(counts: NDArray[np.int64], head: int, sample: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of the `head` greatest counts, and of `sample` random others; ascending."""
    order = np.argsort(-counts, kind="stable")
    others = order[head:]
    drawn = np.random.default_rng(seed).choice(others, min(sample, len(others)), replace=False)
    return np.sort(np.concatenate([order[:head], drawn]))
