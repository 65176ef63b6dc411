"""The Trainer's step as the chief of a cluster, and `components.trainer.worker` beside it: the same model as from one process."""

import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tfx import v1 as tfx

from components import recorded
from components.trainer import arguments, warm_start
from components.trainer.component import (
    ANALYSIS_KEY,
    BLOCKED_FILES,
    CATALOGUE_FILES,
    EARLIER_FILES,
    JUDGED_DAY,
    JUDGED_FILES,
    UNFINISHED,
    WARM_START,
)
from components.trainer.day import TrainingDay
from components.trainer.epochs import Epochs, EpochsOfExamples
from components.trainer.names import LOSS_CURVE
from components.trainer.run import places_of, train_and_export
from components.trainer.settings import TrainerSettings
from components.trainer.strategies import Feed, InStep, Iterated
from components.transform import raw_features
from ndr_client.served import EMBEDDING, EXAMPLES_SIGNATURE
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.exported import export
from tests.components.strategy_processes import Cluster
from tests.forks import Forks
from tests.waiting import wait_for

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 4, "hash_buckets": 7}, "item": {"width": 4, "hash_buckets": 9}},
        "query": {
            "user": {"kind": "id", "table": "user"},
            "latest": {"kind": "id", "table": "item"},
            "latest_sound": {"kind": "looked_up", "of": "latest", "feature": "sound"},
        },
        "item": {"item": {"kind": "id", "table": "item"}, "sound": {"kind": "vector", "size": 2}},
    }
)
TOWERS = {"query": [8, 4], "item": [4]}
FILES, ITEMS = (13, 60, 57), 20  # examples of each
EXAMPLES = sum(FILES)
STEPS_PER_EPOCH, CHECKPOINT_STEPS = 17, 15  # of 8 examples; the last has 2, and is filled up
TASK = 2  # steps, as the worker has 8 tasks until a checkpoint, which is in the middle of the eighth
CLUSTERED = ("multi_worker_mirrored", "parameter_server")
Run = Callable[[str], tfx.components.FnArgs]


def raw(number: int) -> tf.train.Example:
    example = tf.train.Example()
    for name, value in (
        ("user", number % 11),
        ("latest", number * 7 % ITEMS),
        ("item", number % ITEMS),
        (CANDIDATE_ID, number % ITEMS),
        (QUERY_ID, number),
    ):
        example.features.feature[name].bytes_list.value.append(b"%d" % value)
    example.features.feature["sound"].float_list.value.extend([number % ITEMS, 1.0])
    example.features.feature[TIMESTAMP].int64_list.value.append(number)
    example.features.feature[REWARD].float_list.value.append(0.5 + number % 2 / 2)
    return example


@pytest.fixture(scope="module")
def arguments_of(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the step is told, by the strategy's kind; each in a folder of its own, over the same transformed examples."""
    root = tmp_path_factory.mktemp("processes")
    examples = [raw(number).SerializeToString() for number in range(EXAMPLES)]
    with tf.io.TFRecordWriter(str(root / "catalogue.gz"), "GZIP") as writer:
        for example in examples[:ITEMS]:
            writer.write(example)
    export(SPEC, TOWERS, root / "before", catalogue=str(root / "catalogue.gz"))
    transform = tft.TFTransformOutput(str(root / "before" / "transform"))
    dtypes = {**raw_features.dtypes(SPEC.features), CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64}
    parsed = tf.io.parse_example(
        examples, {n: tf.io.VarLenFeature(d) for n, d in {**dtypes, REWARD: tf.float32}.items()}
    )
    transformed = {
        name: values.numpy()
        for name, values in transform.transform_features_layer()(parsed).items()
        if name not in SPEC.kept_in_catalogue  # which interactions lack
    }
    rows = iter(range(EXAMPLES))
    for number, count in enumerate(FILES):
        with tf.io.TFRecordWriter(str(root / f"train-{number}.gz"), "GZIP") as writer:
            for row in islice(rows, count):
                example = tf.train.Example()
                for name, values in transformed.items():
                    feature = example.features.feature[name]
                    (feature.float_list if values.dtype == np.float32 else feature.int64_list).value.append(values[row])
                writer.write(example.SerializeToString())

    def made(kind: str) -> tfx.components.FnArgs:
        settings = TrainerSettings.model_validate(
            {
                "towers": TOWERS,
                "strategy": {"kind": kind if kind in CLUSTERED else "one_device"},
                "batch_size": 8,
                "epochs": 6,
                "adagrad_start": 0.01,
                "softmax": {"uniform_negatives": 4},
                "frequency": {"buckets": 64, "hashes": 2},
                "checkpoint_steps": CHECKPOINT_STEPS,
            }
        )
        fn_args = tfx.components.FnArgs()
        fn_args.train_files, fn_args.num_examples = [str(root / "train-*.gz")], {"train": EXAMPLES}
        fn_args.transform_output, fn_args.base_model = str(root / "before" / "transform"), None
        fn_args.serving_model_dir, fn_args.model_run_dir = str(root / kind / "serving"), str(root / kind / "log")
        fn_args.custom_config = {
            "feature_spec": SPEC.model_dump_json(),
            "trainer": settings.model_dump_json(),
            recorded.SHAPE: warm_start.shape(SPEC, settings),
            ANALYSIS_KEY: str(root / "before" / "analysis"),
            CATALOGUE_FILES: [str(root / "catalogue.gz")],
            BLOCKED_FILES: [],
            EARLIER_FILES: [],
            JUDGED_FILES: [str(root / "catalogue.gz")],
            JUDGED_DAY: 0,
            WARM_START: str(root / kind / "kept"),
            UNFINISHED: str(root / kind / "unfinished"),
        }
        (root / kind).mkdir()
        (root / kind / "arguments.json").write_text(arguments.to_json(fn_args))
        return fn_args

    return made


@pytest.fixture(scope="module")
def on_one_device(arguments_of: Run) -> tfx.components.FnArgs:
    """Trained on the global batches of two processes."""
    fn_args = arguments_of("one_device")
    train_and_export(fn_args, InStep(tf.distribute.get_strategy(), processes=2))
    return fn_args


class TaskByTask(InStep):
    """One device that takes the steps of parameter servers in their order."""

    def division(self, settings: TrainerSettings, steps_per_epoch: int) -> int:
        return TASK

    def feed(self, epochs: Epochs, epoch: int, skip: int, division: int) -> Feed:
        tasks = epochs.tasks(epoch, skip, STEPS_PER_EPOCH - skip, division)
        batches = [batch for task in tasks for batch in epochs.of_task(task, epochs.held())]
        together = tf.nest.map_structure(lambda *rows: tf.stack(rows), *batches)
        return Iterated(iter(tf.data.Dataset.from_tensor_slices(together)))


@pytest.fixture(scope="module")
def task_by_task(arguments_of: Run) -> tfx.components.FnArgs:
    fn_args = arguments_of("task_by_task")
    train_and_export(fn_args, TaskByTask(tf.distribute.get_strategy()))
    return fn_args


def cluster_of(forks: Forks, fn_args: tfx.components.FnArgs, jobs: dict[str, int]) -> Cluster:
    folder = Path(fn_args.model_run_dir).parent
    step = ["step", str(folder / "arguments.json")]
    return Cluster(
        forks, {job: [step if job == "chief" else ["worker"]] * count for job, count in jobs.items()}, folder / "log-of"
    )


def assert_same(found: tfx.components.FnArgs, expected: tfx.components.FnArgs) -> None:
    ours, theirs = (pd.read_csv(os.path.join(one.model_run_dir, LOSS_CURVE))["loss"] for one in (found, expected))
    assert theirs.iloc[-1] < theirs.iloc[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    examples = tf.constant([raw(number).SerializeToString() for number in range(EXAMPLES)])
    for tower in ("query_tower", "item_tower"):
        ours, theirs = (
            tf.saved_model.load(os.path.join(one.serving_model_dir, tower)).signatures[EXAMPLES_SIGNATURE](examples)[
                EMBEDDING
            ]
            for one in (found, expected)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def ended(cluster: Cluster, *processes: tuple[str, int]) -> list[int | None]:
    """The statuses of processes, once they have ended."""
    wait_for(lambda: all(cluster.status(*one) is not None for one in processes), "the end of the training", pause=0.2)
    return [cluster.status(*one) for one in processes]


def test_a_worker_that_is_killed_ends_all_with_75_and_started_again_they_end_as_one_device(
    forks: Forks, arguments_of: Run, on_one_device: tfx.components.FnArgs
) -> None:
    fn_args = arguments_of("multi_worker_mirrored")
    cluster = cluster_of(forks, fn_args, {"chief": 1, "worker": 1})
    try:
        unfinished = Path(fn_args.custom_config[UNFINISHED])
        wait_for(lambda: (unfinished / "checkpoint").exists() or cluster.faults() != [], "a checkpoint")
        cluster.kill("worker", 0)
        assert ended(cluster, ("chief", 0)) == [75], cluster.words("chief", 0)
        assert "Another process of the training went away" in cluster.words("chief", 0)
        assert not Path(fn_args.serving_model_dir).exists()
        cluster.restart("worker", 0)
        cluster.restart("chief", 0)
        assert ended(cluster, ("chief", 0), ("worker", 0)) == [0, 0], cluster.words("chief", 0)
    finally:
        cluster.end()
    assert_same(fn_args, on_one_device)


def test_parameter_servers_with_one_worker_train_and_export_as_one_device(
    forks: Forks, arguments_of: Run, task_by_task: tfx.components.FnArgs
) -> None:
    fn_args = arguments_of("parameter_server")
    cluster = cluster_of(forks, fn_args, {"chief": 1, "worker": 1, "ps": 1})
    try:
        assert ended(cluster, ("chief", 0)) == [0], cluster.words("chief", 0)
    finally:
        cluster.end()
    assert_same(fn_args, task_by_task)


def test_nothing_is_kept_in_memory_before_a_process_has_its_share(arguments_of: Run) -> None:
    fn_args = arguments_of("kept")
    settings = TrainerSettings.model_validate_json(fn_args.custom_config["trainer"])
    assert settings.epochs > 1 and settings.kept_gib > 0
    devices = InStep(tf.distribute.get_strategy(), processes=2)
    day = TrainingDay(places_of(fn_args), SPEC)
    _, _, training = day.training(SPEC, settings, str(fn_args.custom_config[UNFINISHED]), devices)
    assert isinstance(training.epochs, EpochsOfExamples)
    kept = training.epochs.examples.kept
    assert not kept
    next(iter(training.epochs.batches(0, 0, 2, 1, 2)))
    assert list(kept) == [(2, 1)]


def test_arguments_reach_workers_unchanged(on_one_device: tfx.components.FnArgs) -> None:
    told = arguments.to_json(on_one_device)
    assert arguments.to_json(arguments.from_json(told)) == told
    assert json.loads(told)["num_examples"] == {"train": EXAMPLES}
