"""What the frequency estimator says of items, beside how often the training split has them: a file that people look at."""

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
    """Leaves `frequencies.parquet`: `counted` and `estimated`, how many of a batch are of an item, a row an item.

    Of large splits every n-th example is counted. The most frequent items are in it, and others drawn at random.

    Args:
        folder: where to.
        estimator: that of the trained model.
        file_patterns: gzipped TFRecords of transformed tf.Examples.
        examples: how many these are.
        batch_size: rows of the batches that it was trained on.
        seed: of the draw.
    """
    ids, counts = count_items(file_patterns, step(examples))
    kept = head_and_sample(counts, HEAD, SAMPLE, seed)
    frame = pd.DataFrame(
        {
            COUNTED: counts[kept] * (batch_size / counts.sum()),
            ESTIMATED: estimator.estimate(tf.constant(ids[kept])).numpy(),
        }
    )
    content = io.BytesIO()
    frame.to_parquet(content, index=False)
    io_utils.write_bytes_file(os.path.join(folder, FREQUENCIES), content.getvalue())


def step(examples: int) -> int:
    """Of a split of so many examples every n-th is counted, `MOST_EXAMPLES` at most."""
    return -(-examples // MOST_EXAMPLES)


def count_items(file_patterns: Sequence[str], step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each item is in every `step`-th example.

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
    """The positions of the `head` greatest counts, and of `sample` of the others, drawn at random; ascending."""
    order = np.argsort(-counts, kind="stable")
    others = order[head:]
    drawn = np.random.default_rng(seed).choice(others, min(sample, len(others)), replace=False)
    return np.sort(np.concatenate([order[:head], drawn]))
