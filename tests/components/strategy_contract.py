"""What every strategy is asked to do by `test_strategies`.

A first day is trained, then a second one continues from each strategy's first, over another vocabulary; and each strategy's first
day, of which its last checkpoint and no more is left, is brought to its end. What comes of it is left in folders.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

import components
from components.analysis import files
from components.analysis.vocabulary import Known, entries, hash_rows
from components.trainer import strategies, warm_start
from components.trainer.epochs import OwnBatches
from components.trainer.inputs import uniform_draws, with_uniform_items
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import StrategySettings, TrainerSettings
from components.trainer.state import TrainingState, parts_of
from components.trainer.training import Training, train
from components.whole_files import write_aside
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec
from tests.waiting import wait_for

assert components  # which chooses Keras 2

NAMES = ("one_device", "mirrored", "two_workers", "three_workers", "parameter_server")
CLUSTERS = {
    "two_workers": {"chief": 1, "worker": 1},
    "three_workers": {"worker": 3},  # the first is the chief
    "parameter_server": {"chief": 1, "worker": 1, "ps": 2},
}
KINDS = {
    "one_device": {"kind": "one_device"},
    "mirrored": {"kind": "mirrored", "devices": ["CPU:0", "CPU:1"]},
    "two_workers": {"kind": "multi_worker_mirrored"},
    "three_workers": {"kind": "multi_worker_mirrored"},
    "parameter_server": {"kind": "parameter_server", "shard_bytes": 1},
}
BATCH, UNIFORM = 12, 6  # which 2 and 3 replicas share
STEPS_PER_EPOCH, EPOCHS, CHECKPOINT_STEPS = 4, 2, 3  # the last checkpoint is at step 6 of 8
FIRST, SECOND = "abcdefg", "hgcaib"  # of 26 letters; d, e and f expire, h and i are new
BUCKETS, USERS = 5, 11
LONG_EPOCHS, LONG_CHECKPOINT_STEPS = 50, 16  # a process may go away and come back meanwhile
STEPS_COUNTED, STEPS_OF_A_TASK = 60, 3
OF_A_WORKER = "of_a_worker"

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "user": {"width": 4, "hash_buckets": USERS},
            "item": {"width": 3, "hash_buckets": BUCKETS, "vocabulary": {}, "masked": 0},
        },
        "query": {"user": {"kind": "id", "table": "user"}, "past": {"kind": "history", "table": "item", "last": 2}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)


def settings(optimizer: str = "adagrad", **changed: int) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "towers": {"query": [8, 4], "item": [4]},
            "batch_size": BATCH,
            "epochs": EPOCHS,
            "optimizer": optimizer,
            # From nearly nothing, a first step's size is the same whatever the gradient's is, which makes much of a last bit.
            "adagrad_start": 0.01,
            "learning_rate": 0.1,
            "softmax": {"learn_temperature": True, "uniform_negatives": UNIFORM, "block_rows": 5},
            "frequency": {"buckets": 64, "hashes": 2},
            "checkpoint_steps": CHECKPOINT_STEPS,
            **changed,
        }
    )


class Day:
    """A model behind a vocabulary, which may be trained again and again."""

    def __init__(self, folder: Path, vocabulary: str, devices: strategies.Devices, writes: bool = True) -> None:
        self.devices, self.settings = devices, settings()
        self.analysis = str(folder / "analysis")
        known = [letter.encode() for letter in vocabulary]
        if writes:
            ids = {"user": Known(), "item": Known(entries(known, [1.0] * len(known)))}
            files.write(self.analysis, ids, {}, span=0)
        letters = [chr(ord("a") + number).encode() for number in range(26)]
        hashed = len(known) + hash_rows(letters, BUCKETS)
        self.item_rows = tf.constant(
            [known.index(letter) if letter in known else row for letter, row in zip(letters, hashed, strict=True)]
        )
        self.rows = {"user": USERS, "item": len(known) + BUCKETS}
        self.shape = warm_start.shape(SPEC, self.settings)
        epochs = [self._interactions(epoch) for epoch in range(LONG_EPOCHS)]
        self._all = {name: tf.constant(np.stack([epoch[name] for epoch in epochs])) for name in epochs[0]}
        tf_keras.utils.set_random_seed(self.settings.seed)  # as a run does: a dataset's own seed counts from it
        with devices.strategy.scope():
            self.model = build_model(SPEC, self.rows, self.settings, 26, devices.parts)
            self.model.compile(optimizer=build_optimizer(self.settings))
            self.model.make_weights(next(iter(self.batches(0, 0))))
            self.state = TrainingState(self.model)

    def batches(self, epoch: int | tf.Tensor, skip: int | tf.Tensor) -> tf.data.Dataset:
        """The same on every call."""

        def batch(number: tf.Tensor) -> dict[str, tf.Tensor]:
            return {
                name: tf.ensure_shape(values[epoch][number], [BATCH, *values.shape[3:]])
                for name, values in self._all.items()
            }

        batches = tf.data.Dataset.range(skip, STEPS_PER_EPOCH).map(batch)
        catalogue = {"item": tf.cast(self.item_rows, tf.int64), CANDIDATE_ID: tf.range(26, dtype=tf.int64)}
        return with_uniform_items(batches, uniform_draws(catalogue, UNIFORM, seed=epoch, skip=skip))

    def _interactions(self, epoch: int) -> dict[str, NDArray[Any]]:
        """Those of an epoch, batch by batch."""
        random = np.random.default_rng(epoch)
        count = BATCH * STEPS_PER_EPOCH
        item = random.zipf(1.4, count) % 26
        rows = self.item_rows.numpy().astype(np.int64)
        interactions = {
            "user": random.integers(0, USERS, count),
            "past": np.stack([np.full(count, -1), rows[random.integers(0, 26, count)]], axis=1),
            "item": rows[item],
            CANDIDATE_ID: item,
            REWARD: random.random(count).astype(np.float32),
        }
        return {
            name: values.reshape(STEPS_PER_EPOCH, BATCH, *values.shape[1:]) for name, values in interactions.items()
        }

    def go_on_from(self, kept: Path) -> None:
        with self.devices.strategy.scope():
            # As in a model that has not been trained: the optimizer's slots of new ids stay as they are.
            for _, *slots in self.state.rows.values():
                for part in (part for slot in slots for part in parts_of(slot)):
                    part.assign(tf.fill(part.shape, self.settings.adagrad_start))
            warm_start.restore(self.state, SPEC, self.shape, self.analysis, str(kept))

    def save(self, folder: Path) -> None:
        with self.devices.written(self._own(folder)) as where:
            warm_start.save(self.state, self.shape, self.analysis, where)

    def train(self, log: Path, unfinished: Path, **changed: Any) -> None:
        training = Training(OwnBatches(self.batches), STEPS_PER_EPOCH, settings(**changed), str(unfinished))
        train(self.model, self.state, training, self._own(log), self.devices)

    def _own(self, folder: Path) -> str:
        """What a worker would write beside the chief is told from what the chief writes."""
        return str(folder if self.devices.is_chief else folder / OF_A_WORKER)


def first_day(root: Path, name: str, devices: strategies.Devices) -> Day:
    """Trains the first day, and leaves for each strategy what a killed attempt at it would have left."""
    folder = root / name
    if name == "one_device":  # an untrained model, as weights in several parts start from other values
        Day(root / "zero", FIRST, devices).save(root / "zero" / "kept")
    day = Day(folder / "first", FIRST, devices, devices.is_chief)
    if name == "parameter_server":
        wait_for((root / "zero" / "kept" / "settings.json").exists, "the untrained model")
        day.go_on_from(root / "zero" / "kept")
    day.train(folder / "first", folder / "unfinished")
    day.save(folder / "first" / "kept")
    if devices.is_chief:
        for other in NAMES:
            shutil.copytree(folder / "unfinished", folder / f"unfinished_for_{other}")
        (folder / "first_done").touch()
    return day


def go_on(root: Path, name: str, devices: strategies.Devices, first: Day) -> None:
    """Goes on from each strategy's first day, and with each one's attempt at it."""
    folder = root / name
    second = Day(folder / "second", SECOND, devices, devices.is_chief)
    for other in NAMES:
        wait_for((root / other / "first_done").exists, f"the first day of {other}")
        second.go_on_from(root / other / "first" / "kept")
        second.train(folder / "after" / other, folder / f"unfinished_after_{other}")
        second.save(folder / "after" / other / "kept")
        first.go_on_from(root / "zero" / "kept")
        first.train(folder / "continued" / other, root / other / f"unfinished_for_{name}")
        first.save(folder / "continued" / other / "kept")
    if devices.is_chief:
        (folder / "all_done").touch()


def at_their_own_pace(root: Path) -> None:
    """What the chief of a cluster of parameter servers with several workers does."""
    folder = root / "own_pace"
    day = Day(folder, FIRST, strategies.make(StrategySettings.model_validate(KINDS["parameter_server"])))
    day.go_on_from(root / "zero" / "kept")
    day.train(folder, folder / "unfinished", epochs=LONG_EPOCHS, checkpoint_steps=LONG_CHECKPOINT_STEPS)
    day.save(folder / "kept")
    (folder / "done").touch()


def count_steps(root: Path) -> None:
    """What the chief of a cluster of parameter servers does that counts how often each step of an epoch is taken."""
    devices = strategies.make(StrategySettings.model_validate(KINDS["parameter_server"]))
    with devices.strategy.scope():
        taken = tf.Variable(tf.zeros([STEPS_COUNTED], tf.int64))

    def take(number: tf.Tensor) -> None:
        taken.assign_add(tf.one_hot(number, STEPS_COUNTED, dtype=tf.int64))
        tf.io.write_file(tf.strings.join([f"{root}/step-", tf.strings.as_string(number)]), "")

    @tf.function
    def step(feed: Any) -> None:
        devices.strategy.run(take, (next(feed),))

    feed = devices.feed(OwnBatches(lambda _, skip: tf.data.Dataset.range(skip, STEPS_COUNTED)), 0, 0, STEPS_OF_A_TASK)
    first = 4 * STEPS_OF_A_TASK
    feed.take(step, first)  # all workers know the step now
    (root / "ready").touch()
    wait_for((root / "go").exists, "the test that stops a worker")
    feed.take(step, STEPS_COUNTED - first)
    write_aside(root / "counts", json.dumps(taken.numpy().tolist()))


def take_part(name: str, root: Path) -> None:
    """What a process of a cluster does; TF_CONFIG says which one it is."""
    devices = strategies.make(StrategySettings.model_validate(KINDS[name]))
    assert devices.hand_over("from the chief" if devices.is_chief else "from another") == "from the chief"
    first = first_day(root, name, devices)
    go_on(root, name, devices, first)
    if name == "parameter_server":
        wait_for((root / "go").exists, "the test that ends a worker")
        first.go_on_from(root / "zero" / "kept")
        folders = root / name / "long", root / name / "unfinished_long"
        first.train(*folders, epochs=LONG_EPOCHS, checkpoint_steps=LONG_CHECKPOINT_STEPS)
        first.save(root / name / "long" / "kept")
        (root / name / "long_done").touch()
    devices.part()
