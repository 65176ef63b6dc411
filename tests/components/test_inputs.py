"""The training split in full batches, in an order that depends only on the seed, whether it is read again or kept."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components.trainer.inputs import Mask, TrainingExamples, known_items, masked, parsed_bytes, uniform_draws
from schemas.features import CANDIDATE_ID, REWARD

FEATURES = {
    CANDIDATE_ID: tf.io.FixedLenFeature([], tf.int64),
    REWARD: tf.io.FixedLenFeature([], tf.float32),
    "history": tf.io.FixedLenFeature([3], tf.int64),
}
ROWS, FILES, BATCH, WINDOW = 1003, 3, 10, 95  # windows are 10 batches
BATCHES, FILLED = 101, 7  # the last batch has 3 rows, and is filled up


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


@pytest.fixture(params=[False, True], ids=["read again", "kept"])
def examples(request: pytest.FixtureRequest, folder: Path) -> TrainingExamples:
    return read(folder, request.param)


def read(folder: Path, kept: bool) -> TrainingExamples:
    return TrainingExamples([f"{folder}/*.gz"], tft.TFTransformOutput(str(folder)), BATCH, ROWS, kept, WINDOW)


def rows(batches: tf.data.Dataset) -> list[list[int]]:
    return [batch[CANDIDATE_ID].tolist() for batch in batches.as_numpy_iterator()]


def test_an_epochs_batches_are_full_and_have_every_row_once(examples: TrainingExamples) -> None:
    for epoch in range(3):
        found = rows(examples.batches(epoch))
        assert [len(batch) for batch in found] == [BATCH] * BATCHES
        flat = [row for batch in found for row in batch]
        assert sorted(flat[:ROWS]) == list(range(ROWS))
        assert len(set(flat[ROWS:]) & set(range(ROWS))) == FILLED  # some of them again, which have no reward here


def test_a_row_keeps_its_values_together(examples: TrainingExamples) -> None:
    for number, batch in enumerate(examples.batches(1).as_numpy_iterator(), 1):
        rewards = batch[CANDIDATE_ID] / 1000
        rewards[BATCH - FILLED if number == BATCHES else BATCH :] = 0.0
        assert batch[REWARD] == pytest.approx(rewards)
        assert batch["history"].tolist() == [[-row] * 3 for row in batch[CANDIDATE_ID].tolist()]


def test_the_seed_says_the_order_and_each_epoch_has_another(examples: TrainingExamples) -> None:
    first = rows(examples.batches(1))
    assert rows(examples.batches(2)) != first
    assert rows(examples.batches(1)) == first


@pytest.mark.parametrize("kept", [False, True])
def test_each_epoch_shuffles_a_window_in_another_way(folder: Path, kept: bool) -> None:
    # All rows in one window: neither files nor windows can take turns in another order.
    split = TrainingExamples(
        [f"{folder}/0.gz"], tft.TFTransformOutput(str(folder)), BATCH, -(-ROWS // 3), kept, window=ROWS
    )
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


def test_masks_hide_their_share_of_ids_and_no_others() -> None:
    rows = tf.concat([tf.range(20_000, dtype=tf.int64), tf.fill([5_000], tf.constant(-1, tf.int64))], axis=0)
    inputs = {"item": rows, "maker": rows, "seed": rows}
    masks = {"item": Mask(row=30_000, share=0.1), "maker": Mask(row=40_000, share=0.1), "user": Mask(row=9, share=0.5)}
    found = {name: values.numpy() for name, values in masked(inputs, masks, seed=3, number=2).items()}
    assert found.keys() == inputs.keys() and np.array_equal(found["seed"], rows)
    hidden = {name: found[name] == masks[name].row for name in ("item", "maker")}
    for name in ("item", "maker"):
        # 2,000 expected, standard deviation 42; what is missing stays missing, and all else is as it was.
        assert hidden[name].sum() == pytest.approx(2000, abs=5 * 42)
        assert not hidden[name][20_000:].any()
        assert np.array_equal(found[name][~hidden[name]], rows.numpy()[~hidden[name]])
    # Independent: of the 2,000 of one, a tenth are hidden of the other too.
    assert (hidden["item"] & hidden["maker"]).sum() == pytest.approx(200, abs=75)
    again, other = (masked(inputs, masks, 3, number)["item"].numpy() for number in (2, 3))
    assert np.array_equal(again, found["item"]) and not np.array_equal(other, found["item"])


def test_a_training_that_resumes_hides_the_same_ids(folder: Path) -> None:
    masks = {"history": Mask(row=7, share=0.3)}
    output = tft.TFTransformOutput(str(folder))
    split = TrainingExamples([f"{folder}/*.gz"], output, BATCH, ROWS, window=WINDOW, masks=masks)

    def histories(skip: int) -> list[list[list[int]]]:
        return [batch["history"].tolist() for batch in split.batches(1, skip).as_numpy_iterator()]

    assert histories(0)[13:] == histories(13)


def test_draws_are_masked_and_resume_too() -> None:
    catalogue = {name: tf.range(10, dtype=tf.int64) for name in ("item", CANDIDATE_ID)}
    draws = uniform_draws(catalogue, 1000, seed=1, masks={"item": Mask(row=10, share=0.2)})
    found = [(draw["item"].tolist(), draw[CANDIDATE_ID].tolist()) for draw in draws.take(8).as_numpy_iterator()]
    assert found[5:] == [
        (draw["item"].tolist(), draw[CANDIDATE_ID].tolist()) for draw in draws.skip(5).take(3).as_numpy_iterator()
    ]
    for items, ids in found:
        pairs = list(zip(items, ids, strict=True))
        # 200 expected, standard deviation 13; the id itself stays, as the estimator and the accidental hits need it.
        assert sum(item == 10 for item, _ in pairs) == pytest.approx(200, abs=5 * 13)
        assert all(item in (own, 10) for item, own in pairs)


def test_draws_are_items_that_were_seen_or_have_rows() -> None:
    # Of five items the first two have rows of their own, and the second and the third were seen; 9 is the mask's row.
    catalogue = {
        "item": tf.constant([0, 1, 9, 9, 9], tf.int64),
        CANDIDATE_ID: tf.constant([10, 11, 12, 13, 14], tf.int64),
    }
    masks = {"item": Mask(row=9, share=0.1)}
    known = known_items(catalogue, np.array([11, 12, 99]), masks, ["item"])
    assert known[CANDIDATE_ID].numpy().tolist() == [10, 11, 12]
    assert known["item"].numpy().tolist() == [0, 1, 9]
    # Where every id is hashed, what was seen alone says it; and where nothing is known, all are drawn.
    assert known_items(catalogue, np.array([13]), {}, ["item"])[CANDIDATE_ID].numpy().tolist() == [13]
    assert known_items(catalogue, np.array([99]), {}, ["item"])[CANDIDATE_ID].shape == [5]
