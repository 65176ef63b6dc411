"""The training split in full batches, in an order that depends only on the seed, whether it is read again or kept."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components.trainer.examples import TrainingExamples
from components.trainer.inputs import Mask, known_items, masked, parsed_bytes, uniform_draws
from components.transform.file_rows import rows_of_files
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
    return TrainingExamples(rows_of_files([f"{folder}/*.gz"]), tft.TFTransformOutput(str(folder)), BATCH, kept, WINDOW)


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
    split = TrainingExamples({f"{folder}/0.gz": -(-ROWS // 3)}, tft.TFTransformOutput(str(folder)), BATCH, kept, ROWS)
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
    split = TrainingExamples(rows_of_files([f"{folder}/*.gz"]), output, BATCH, window=WINDOW, masks=masks)

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


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_processes_have_disjoint_shares_of_the_epoch_and_their_rows_of_the_same_batches(
    folder: Path, processes: int, kept: bool
) -> None:
    # 1003 rows for 5 shares are 200 or 201 each; batches have 2 rows of each share.
    split = read(folder, kept)
    alone = rows(split.batches(1, division=5))
    found = [rows(split.batches(1, 0, 5, process, processes)) for process in range(processes)]
    assert [[row for part in batch for row in part] for batch in zip(*found, strict=True)] == alone
    assert sorted({row for batch in alone for row in batch}) == list(range(ROWS))
    assert sum(len(batch) for batch in alone) == BATCHES * BATCH
    assert rows(split.batches(1, 37, 5, processes - 1, processes)) == found[-1][37:]
    if processes == 5:
        shares = [{row for batch in share for row in batch} for share in found]
        assert sorted(map(len, shares)) == [200, 200, 201, 201, 201]
        assert sum(map(len, shares)) == ROWS


def test_processes_that_are_no_divisor_of_an_attempts_shares_have_their_rows_of_its_batches(folder: Path) -> None:
    # The second of two has rows 5 to 9 of a batch, which are of the third to the fifth share.
    split = read(folder, kept=False)
    assert rows(split.batches(1, 0, 5, 1, 2)) == [batch[5:] for batch in rows(split.batches(1, division=5))]


def test_a_process_opens_only_the_files_of_its_share(tmp_path: Path, folder: Path) -> None:
    # Three files of 335, 334 and 334 rows, in an order that the seed says: shares of a half have the first and second, or the
    # second and third of them.
    for process in (0, 1):
        copied = shutil.copytree(folder, tmp_path / str(process))
        split = read(copied, kept=False)
        whole = rows(split.batches(1, 0, 2, process, 2))
        needed = []
        for file in sorted(copied.glob("*.gz")):
            aside = file.rename(file.with_suffix(".aside"))
            try:
                needed.append(rows(split.batches(1, 0, 2, process, 2)) != whole)
            except tf.errors.NotFoundError:
                needed.append(True)
            aside.rename(file)
        assert needed.count(True) == 2


@pytest.mark.parametrize("at_most", [7, 50, 1000])
def test_tasks_have_every_row_of_an_epoch_once(folder: Path, at_most: int) -> None:
    split = read(folder, kept=False)
    tasks = list(split.tasks(1, 0, BATCHES, at_most))
    assert [task.steps for task in tasks[:-1]] == [at_most] * (len(tasks) - 1)
    found = [rows(split.of_task(task)) for task in tasks]
    assert [len(batches) for batches in found] == [task.steps for task in tasks]
    flat = [row for batches in found for batch in batches for row in batch]
    assert len(flat) == BATCHES * BATCH
    assert sorted(flat[:ROWS]) == list(range(ROWS))
    *_, last = (batch for task in tasks for batch in split.of_task(task).as_numpy_iterator())
    assert last[REWARD][BATCH - FILLED :].tolist() == [0.0] * FILLED
    own, filled = (last[CANDIDATE_ID][part].tolist() for part in (slice(BATCH - FILLED), slice(BATCH - FILLED, None)))
    assert not set(own) & set(filled) and len(set(filled)) == FILLED  # other negatives than one another
    assert (last[CANDIDATE_ID] / 1000)[: BATCH - FILLED].tolist() == pytest.approx(
        last[REWARD][: BATCH - FILLED].tolist()
    )
    assert [rows(split.of_task(task)) for task in split.tasks(2, 0, BATCHES, at_most)] != found


def test_tasks_of_one_file_begin_at_another_row_in_each_epoch(folder: Path) -> None:
    output = tft.TFTransformOutput(str(folder))
    split = TrainingExamples({f"{folder}/0.gz": 335}, output, BATCH)

    def together(epoch: int) -> set[frozenset[int]]:
        return {frozenset(batch) for task in split.tasks(epoch, 0, 34, 1) for batch in rows(split.of_task(task))}

    assert len(together(0) & together(1)) < 5


@pytest.mark.parametrize(("skip", "steps"), [(0, 3), (3, 4), (5, 20), (96, 5), (100, 1)])
def test_some_steps_tasks_are_those_steps_of_the_epochs(folder: Path, skip: int, steps: int) -> None:
    split = read(folder, kept=False)
    epoch = [batch for task in split.tasks(1, 0, BATCHES, 7) for batch in rows(split.of_task(task))]
    some = [batch for task in split.tasks(1, skip, steps, 7) for batch in rows(split.of_task(task))]
    assert some == epoch[skip : skip + steps]


def test_draws_behind_skipped_ones_are_those_that_would_have_come() -> None:
    catalogue = {CANDIDATE_ID: tf.range(50, dtype=tf.int64)}
    drawn, skipped = (
        rows(uniform_draws(catalogue, 4, seed=3, masks={CANDIDATE_ID: Mask(50, 0.5)}, skip=skip).take(9 - skip))
        for skip in (0, 4)
    )
    assert skipped == drawn[4:]
