"""Training that is killed after any step, and called again, ends as if nothing had happened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

from components.trainer import training as training_loop
from components.trainer.epochs import OwnBatches
from components.trainer.examples import TrainingExamples
from components.trainer.held_out import HeldOut
from components.trainer.inputs import Batch, uniform_draws, with_uniform_items
from components.trainer.model import build_model
from components.trainer.names import LOSS_CURVE
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import EarlyStoppingSettings, TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.stopping import BEST, EarlyStopping
from components.trainer.strategies import InStep, one_device
from components.trainer.training import Training, train
from components.transform.file_rows import rows_of_files
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

Read = Callable[..., tf.data.Dataset]
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 4, "hash_buckets": 7}, "item": {"width": 4, "hash_buckets": 9}},
        "query": {"user": {"kind": "id", "table": "user"}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
FEATURES = {
    **{name: tf.io.FixedLenFeature([], tf.int64) for name in ("user", "item", CANDIDATE_ID)},
    REWARD: tf.io.FixedLenFeature([], tf.float32),
}
ROWS, BATCH = 18, 4  # 5 batches an epoch, the last of which has 2 rows and is filled up
STEPS_PER_EPOCH, EPOCHS, CHECKPOINT_STEPS = 5, 3, 3
STEPS_BEFORE = 7  # of the model that training continues from
STOPPING = EarlyStoppingSettings(recall_at=3, patience=1)
CATALOGUE = {"item": tf.range(9, dtype=tf.int64), CANDIDATE_ID: tf.range(9, dtype=tf.int64)}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """`TrainingExamples` of two files as Transform leaves them; the row n has the candidate n."""
    folder = tmp_path_factory.mktemp("transformed")
    for part in range(2):
        with tf.io.TFRecordWriter(f"{folder}/{part}.gz", "GZIP") as writer:
            for row in range(part, ROWS, 2):
                example = tf.train.Example()
                for name, value in (("user", row % 7), ("item", row % 9), (CANDIDATE_ID, row)):
                    example.features.feature[name].int64_list.value.append(value)
                example.features.feature[REWARD].float_list.value.append(1.0)
                writer.write(example.SerializeToString())
    metadata = dataset_metadata.DatasetMetadata.from_feature_spec(FEATURES)
    metadata_io.write_metadata(metadata, f"{folder}/{tft.TFTransformOutput.TRANSFORMED_METADATA_DIR}")
    output = tft.TFTransformOutput(str(folder))
    return TrainingExamples(rows_of_files([f"{folder}/*.gz"]), output, BATCH).batches


def rows(batches: tf.data.Dataset) -> list[list[int]]:
    return [batch[CANDIDATE_ID].tolist() for batch in batches.as_numpy_iterator()]


def test_an_epochs_batches_are_full_and_have_every_row(read: Read) -> None:
    found = rows(read(1))
    assert [len(batch) for batch in found] == [BATCH] * STEPS_PER_EPOCH
    assert len({row for batch in found for row in batch}) == ROWS


def test_the_same_seed_gives_the_same_batches_and_another_epoch_another_order(read: Read) -> None:
    assert rows(read(1)) == rows(read(1))
    assert rows(read(1)) != rows(read(2))


@pytest.mark.parametrize("skip", range(STEPS_PER_EPOCH + 1))
def test_batches_behind_skipped_ones_are_those_that_would_have_come(read: Read, skip: int) -> None:
    assert rows(read(1, skip)) == rows(read(1))[skip:]


class Noting(OwnBatches):
    """Notes by how many shares each epoch is asked for."""

    def __init__(self, make: Read, divisions: list[int]) -> None:
        super().__init__(make)
        self._divisions = divisions

    def batches(self, epoch: int, skip: int, division: int, process: int, processes: int) -> tf.data.Dataset:
        self._divisions.append(division)
        return super().batches(epoch, skip, division, process, processes)


class Attempt:
    """At one and the same training, each time by a new model; asking for a batch may kill it."""

    def __init__(
        self,
        folder: Path,
        read: Read,
        checkpoint_steps: int = CHECKPOINT_STEPS,
        stops: bool = False,
        epochs: int = EPOCHS,
    ) -> None:
        self._folder, self._read, self._stops = folder, read, stops
        self._settings = TrainerSettings.model_validate(
            {
                "towers": {"query": [8, 4], "item": [4], "dropout": 0.25},
                "optimizer": "adam",
                "weight_decay": 0.1,
                # By the number of epochs, which another one would change.
                "schedule": {"kind": "constant" if stops or epochs != EPOCHS else "cosine", "warmup_share": 0.0},
                "epochs": epochs,
                "softmax": {"learn_temperature": True, "uniform_negatives": 3},
                "frequency": {"buckets": 64, "hashes": 2},
                "checkpoint_steps": checkpoint_steps,
            }
        )

    def train(
        self, killed_after: int = STEPS_PER_EPOCH * EPOCHS, devices: InStep | None = None, batch_size: int = BATCH
    ) -> None:
        self.asked: list[tuple[int, int]] = []
        self.divisions: list[int] = []
        model = build_model(SPEC, {"user": 7, "item": 9}, self._settings, 9)
        model.compile(optimizer=build_optimizer(self._settings, STEPS_PER_EPOCH * EPOCHS))
        model.make_weights(next(iter(self._batches(0, 0))))
        state = TrainingState(model)
        model.optimizer.iterations.assign(STEPS_BEFORE)

        def mortal(epoch: int, skip: int) -> tf.data.Dataset:
            def check(step: tf.Tensor, batch: Batch) -> Batch:
                with tf.control_dependencies([tf.debugging.assert_less(step, tf.constant(killed_after, tf.int64))]):
                    return tf.nest.map_structure(tf.identity, batch)

            self.asked.append((epoch, skip))
            return self._batches(epoch, skip).enumerate(STEPS_PER_EPOCH * epoch + skip).map(check)

        stopping = None
        if self._stops:
            # Users want what they never took in training, so the longer it lasts, the less is found.
            users, opposite = tf.range(7, dtype=tf.int64), (np.arange(7) + 4) % 9
            held_out = HeldOut({"user": users}, CATALOGUE, opposite, np.zeros(7, np.int64), np.ones(7, bool))
            stopping = EarlyStopping(STOPPING, held_out, self._settings.epochs)
        unfinished = str(self._folder / "unfinished")
        training = Training(
            Noting(mortal, self.divisions), STEPS_PER_EPOCH, self._settings, unfinished, stopping, batch_size
        )
        log = self._folder / f"log-{killed_after}"  # TFX gives every attempt another one
        train(model, state, training, str(log), devices or one_device())
        tables = {f"{table}:{n}": v for table, variables in state.rows.items() for n, v in enumerate(variables)}
        estimator = {name: getattr(model.frequency, name) for name in ("step", "marks", "means")}
        self.changed = {name: v.numpy() for name, v in (tables | state.rest | estimator).items()}
        self.losses = pd.read_csv(log / LOSS_CURVE)

    def _batches(self, epoch: int, skip: int) -> tf.data.Dataset:
        return with_uniform_items(self._read(epoch, skip), uniform_draws(CATALOGUE, 3, epoch, skip=skip))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, read: Read) -> Attempt:
    attempt = Attempt(tmp_path_factory.mktemp("undisturbed"), read)
    attempt.train()
    return attempt


# Every third of the model's steps is written down, of which 7 were before: steps 2, 5, 8, 11 and 14 of this training.
@pytest.mark.parametrize(
    ("killed_after", "asked"),
    [
        (1, [(0, 0), (1, 0), (2, 0)]),
        (2, [(0, 2), (1, 0), (2, 0)]),
        (5, [(1, 0), (2, 0)]),
        (7, [(1, 0), (2, 0)]),
        (10, [(1, 3), (2, 0)]),
        (14, [(2, 4)]),
    ],
)
def test_a_training_killed_after_any_step_ends_as_an_undisturbed_one(
    tmp_path: Path, read: Read, undisturbed: Attempt, killed_after: int, asked: list[tuple[int, int]]
) -> None:
    attempt = Attempt(tmp_path, read)
    with pytest.raises(tf.errors.InvalidArgumentError):
        attempt.train(killed_after)
    attempt.train()
    assert attempt.asked == asked  # epochs, and the batches of each that are passed over
    assert attempt.changed["iterations"] == STEPS_BEFORE + STEPS_PER_EPOCH * EPOCHS
    assert_equal(attempt.changed, undisturbed.changed)
    # The loss curve, too, although an epoch's mean has steps of both attempts.
    pd.testing.assert_frame_equal(attempt.losses, undisturbed.losses)


def test_another_number_of_processes_divides_a_killed_attempts_epochs_as_the_first_did(
    tmp_path: Path, read: Read
) -> None:
    attempt = Attempt(tmp_path, read)
    with pytest.raises(tf.errors.InvalidArgumentError):
        attempt.train(10, InStep(tf.distribute.get_strategy(), processes=3))
    attempt.train()
    assert attempt.divisions == [3, 1]  # the rest of the epoch that was begun, and one of its own
    other = Attempt(tmp_path / "other", read)
    other.train()
    assert other.divisions == [1, 1, 1]


def test_an_attempt_with_other_batches_begins_its_epoch_again(tmp_path: Path, read: Read, undisturbed: Attempt) -> None:
    # As of three processes, whose batches were smaller so that all had as many rows.
    attempt = Attempt(tmp_path, read)
    with pytest.raises(tf.errors.InvalidArgumentError):
        attempt.train(10, batch_size=BATCH - 1)
    attempt.train()
    assert attempt.asked == [(1, 0), (2, 0)]
    # The first steps of the second epoch, which the first attempt took, are in none of its losses, but in the model.
    assert attempt.changed["iterations"] == STEPS_BEFORE + STEPS_PER_EPOCH * EPOCHS + 3
    assert attempt.losses["loss"][0] == undisturbed.losses["loss"][0] != attempt.losses["loss"][1]
    assert attempt.losses["loss"][1] < undisturbed.losses["loss"][0]


@pytest.mark.parametrize("counts", [True, False])
def test_an_attempt_whose_checkpoint_does_not_count_steps_begins_again(
    tmp_path: Path, read: Read, undisturbed: Attempt, counts: bool
) -> None:
    attempt = Attempt(tmp_path, read)
    with pytest.raises(tf.errors.InvalidArgumentError):
        attempt.train(7)
    with pytest.MonkeyPatch.context() as patched:
        if not counts:
            patched.setattr(training_loop, "TAKEN", "what/a/version/before/lacked")
        attempt.train()
    assert attempt.asked[0] == ((1, 0) if counts else (0, 0))
    assert_equal(attempt.changed, undisturbed.changed)


def test_a_training_that_ended_is_not_trained_further(tmp_path: Path, read: Read) -> None:
    attempt = Attempt(tmp_path, read, checkpoint_steps=1)
    attempt.train()
    expected = attempt.changed
    attempt.train()
    assert attempt.asked == []
    assert_equal(attempt.changed, expected)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, read: Read) -> Attempt:
    attempt = Attempt(tmp_path_factory.mktemp("stopped"), read, stops=True)
    attempt.train()
    return attempt


def test_training_stops_when_an_epoch_is_no_better_and_the_best_ones_model_is_kept(
    stopped: Attempt, read: Read, tmp_path: Path
) -> None:
    recalls = stopped.losses["recall"].tolist()
    assert len(recalls) == 2 < EPOCHS and recalls[1] <= recalls[0]
    assert stopped.asked == [(0, 0), (1, 0)]
    first_epoch = Attempt(tmp_path, read, epochs=1)
    first_epoch.train()
    assert_equal(stopped.changed, first_epoch.changed)


def test_a_training_that_stops_early_may_be_killed_too(tmp_path: Path, read: Read, stopped: Attempt) -> None:
    attempt = Attempt(tmp_path, read, stops=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        # In the second epoch, which is no better than the first: its third step is written down.
        attempt.train(killed_after=9)
    for asked in ([(1, 3)], []):  # the second time there is nothing left to do
        attempt.train()
        assert attempt.asked == asked
        assert_equal(attempt.changed, stopped.changed)
        pd.testing.assert_frame_equal(attempt.losses, stopped.losses)
    assert {path.name.partition(".")[0] for path in (tmp_path / "unfinished").glob(f"{BEST}*")} == {f"{BEST}0"}


def assert_equal(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    """To the bit."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
