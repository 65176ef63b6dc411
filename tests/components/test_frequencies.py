"""What the Trainer leaves of the frequencies: counts of real files, beside a real estimator's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from components.trainer import frequencies
from components.trainer.frequency import FrequencyEstimator
from components.trainer.names import FREQUENCIES

ITEMS = [7, -3, 7, 7, 5, -3, 7, 5]  # in files of four


@pytest.fixture
def patterns(tmp_path: Path) -> list[str]:
    for part, ids in enumerate((ITEMS[:4], ITEMS[4:])):
        options = tf.io.TFRecordOptions(compression_type="GZIP")
        with tf.io.TFRecordWriter(str(tmp_path / f"examples-{part}.gz"), options) as writer:
            for id in ids:
                example = tf.train.Example()
                example.features.feature["candidate_id"].int64_list.value.append(id)
                example.features.feature["title"].bytes_list.value.append(b"not read")
                writer.write(example.SerializeToString())
    return [str(tmp_path / "examples-*")]


def test_items_are_counted_over_all_files(patterns: list[str]) -> None:
    ids, counts = frequencies.count_items(patterns, step=1)
    assert (ids.tolist(), counts.tolist()) == ([-3, 5, 7], [2, 2, 4])


def test_of_large_splits_every_nth_example_is_counted(patterns: list[str]) -> None:
    # The first, the fourth and the seventh: 7, 7, 7.
    ids, counts = frequencies.count_items(patterns, step=3)
    assert (ids.tolist(), counts.tolist()) == ([7], [3])


def test_the_file_has_counted_and_estimated_frequencies(patterns: list[str], tmp_path: Path) -> None:
    estimator = FrequencyEstimator(buckets=1024)
    estimator(tf.constant([7, 7, 7, 5], tf.int64))
    estimator(tf.constant([7, 5, -3, -3], tf.int64))
    frequencies.write(str(tmp_path), estimator, patterns, examples=8, batch_size=4, seed=0)
    found = pd.read_parquet(tmp_path / FREQUENCIES)
    # Of 8 examples, 2, 2 and 4 are of -3, 5 and 7: half of that in a batch of four.
    assert found["counted"].tolist() == [1.0, 1.0, 2.0]
    # -3 came once, with the second step, twice: 2 hits / a gap of 2. 5 came at each, once. 7 came at each, 3 and 1 times.
    assert found["estimated"].tolist() == pytest.approx([1.0, 1.0, 2.0])


def test_the_most_frequent_are_kept_and_of_the_others_a_sample() -> None:
    counts = np.array([1, 9, 1, 8, 1, 1, 1])
    kept = frequencies.head_and_sample(counts, head=2, sample=3, seed=1)
    assert {1, 3} < set(kept.tolist()) and len(kept) == 5 and kept.tolist() == sorted(kept)
    assert frequencies.head_and_sample(counts, head=2, sample=30, seed=1).tolist() == list(range(7))
