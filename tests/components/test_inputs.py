"""The training split in batches: full ones, in an order that the seed alone says, whether it is read anew or kept."""

import shutil
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components.trainer.inputs import TrainingExamples, parsed_bytes
from schemas.features import CANDIDATE_ID, REWARD

FEATURES = {
    CANDIDATE_ID: tf.io.FixedLenFeature([], tf.int64),
    REWARD: tf.io.FixedLenFeature([], tf.float32),
    "history": tf.io.FixedLenFeature([3], tf.int64),
}
ROWS, FILES, BATCH, WINDOW = 1003, 3, 10, 95  # of which 3 are left over each epoch; windows are 10 batches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the files, as Transform leaves them; the row n has the candidate n, the reward n / 1000, and -n thrice for a history."""
    folder = tmp_path_factory.mktemp("transformed")
    for part in range(FILES):
        with tf.io.TFRecordWriter(f"{folder}/{part}.gz", "GZIP") as writer:
            for row in range(part, ROWS, FILES):
                example = tf.train.Example()
                example.features.feature[CANDIDATE_ID].int64_list.value.append(row)
                example.features.feature[REWARD].float_list.value.append(row / 1000)
                example.features.feature["history"].int64_list.value.extend([-row] * 3)
                writer.write(example.SerializeToString())
    metadata = dataset_metadata.DatasetMetadata.from_feature_spec(FEATURES)
    metadata_io.write_metadata(metadata, f"{folder}/{tft.TFTransformOutput.TRANSFORMED_METADATA_DIR}")
    return folder


@pytest.fixture(params=[False, True], ids=["read anew", "kept"])
def examples(request: pytest.FixtureRequest, folder: Path) -> TrainingExamples:
    return read(folder, request.param)


def read(folder: Path, kept: bool) -> TrainingExamples:
    return TrainingExamples([f"{folder}/*.gz"], tft.TFTransformOutput(str(folder)), BATCH, kept, WINDOW)


def rows(batches: tf.data.Dataset) -> list[list[int]]:
    return [batch[CANDIDATE_ID].tolist() for batch in batches.as_numpy_iterator()]


def test_an_epochs_batches_are_full_and_have_no_row_twice(examples: TrainingExamples) -> None:
    for epoch in range(3):
        found = rows(examples.batches(epoch))
        assert [len(batch) for batch in found] == [BATCH] * (ROWS // BATCH)
        assert len({row for batch in found for row in batch}) == ROWS - ROWS % BATCH


def test_a_row_keeps_its_values_together(examples: TrainingExamples) -> None:
    for batch in examples.batches(1).as_numpy_iterator():
        assert batch[REWARD] == pytest.approx(batch[CANDIDATE_ID] / 1000)
        assert batch["history"].tolist() == [[-row] * 3 for row in batch[CANDIDATE_ID].tolist()]


def test_the_seed_says_the_order_and_each_epoch_has_another(examples: TrainingExamples) -> None:
    first = rows(examples.batches(1))
    assert rows(examples.batches(2)) != first
    assert rows(examples.batches(1)) == first


@pytest.mark.parametrize("kept", [False, True])
def test_each_epoch_shuffles_a_window_in_another_way(folder: Path, kept: bool) -> None:
    # All rows in one window: neither files nor windows can take turns in another order.
    split = TrainingExamples([f"{folder}/0.gz"], tft.TFTransformOutput(str(folder)), BATCH, kept, window=ROWS)
    assert rows(split.batches(1)) != rows(split.batches(2))


@pytest.mark.parametrize("kept", [False, True])
def test_nothing_but_the_arguments_says_the_order(folder: Path, kept: bool) -> None:
    # A training that was killed goes on with the order that it had.
    assert rows(read(folder, kept).batches(5)) == rows(read(folder, kept).batches(5))


@pytest.mark.parametrize("skip", [1, 37, 99, 100, 101])
def test_batches_behind_skipped_ones_are_those_that_would_have_come(examples: TrainingExamples, skip: int) -> None:
    assert rows(examples.batches(1, skip)) == rows(examples.batches(1))[skip:]


def test_a_window_is_shuffled_as_a_whole(examples: TrainingExamples) -> None:
    # A window is 100 rows of one file. In its order a batch would reach over 10 of them; 10 drawn from 100 reach over more than
    # half in all but one of some hundred batches.
    first = rows(examples.batches(3))[:10]
    together = sorted(row for batch in first for row in batch)
    place = {row: number for number, row in enumerate(together)}
    reaches = [max(place[row] for row in batch) - min(place[row] for row in batch) for batch in first]
    assert sum(reach > 50 for reach in reaches) >= 9


def test_the_files_are_read_once_where_they_are_kept(tmp_path: Path, folder: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    kept = read(copied, kept=True)
    next(iter(kept.batches(0)))  # an epoch leaves rows over, so no one asks for the end
    shutil.rmtree(copied)
    assert rows(kept.batches(1)) == rows(read(folder, kept=True).batches(1))


def test_an_example_takes_the_bytes_of_its_features(folder: Path) -> None:
    assert parsed_bytes(tft.TFTransformOutput(str(folder))) == 8 + 4 + 3 * 8
