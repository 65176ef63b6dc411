"""One contract for every strategy: it trains as one device does, and every other strategy continues from its state."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components.trainer import strategies
from components.trainer.names import LOSS_CURVE
from components.trainer.settings import StrategySettings
from components.trainer.warm_start import CHECKPOINT
from tests.components import strategy_contract as contract
from tests.components.strategy_processes import Cluster
from tests.forks import Forks
from tests.waiting import wait_for

pairs = pytest.mark.parametrize("other", contract.NAMES)
each = pytest.mark.parametrize("name", contract.NAMES)


def jobs(name: str, root: Path) -> dict[str, list[list[str]]]:
    takes_part = ["contract", name, str(root)]
    serves = "ps" in contract.CLUSTERS[name]
    return {
        job: [["worker"] if serves and job != "chief" else takes_part] * count
        for job, count in contract.CLUSTERS[name].items()
    }


def wait_for_files(files: list[Path], running: list[Cluster]) -> None:
    def there() -> bool:
        assert [fault for cluster in running for fault in cluster.faults()] == []
        return all(file.exists() for file in files)

    wait_for(there, str(files), pause=0.2)


@pytest.fixture(scope="module")
def clusters(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Cluster]]]:
    """All strategies at once; a folder each of the first part holds what they leave."""
    root = tmp_path_factory.mktemp("strategies")
    with contextlib.ExitStack() as stack:
        running = {}
        for name in contract.CLUSTERS:
            running[name] = Cluster(forks, jobs(name, root), root / name)
            stack.callback(running[name].end)
        here = {
            name: strategies.make(StrategySettings.model_validate(contract.KINDS[name]))
            for name in ("one_device", "mirrored")
        }
        first = {name: contract.first_day(root, name, devices) for name, devices in here.items()}
        wait_for_files([root / name / "first_done" for name in contract.NAMES], list(running.values()))
        for name, devices in here.items():
            contract.go_on(root, name, devices, first[name])
        yield root, running


@pytest.fixture(scope="module")
def root(clusters: tuple[Path, dict[str, Cluster]]) -> Path:
    """The folder, once all have trained but for the long training with parameter servers."""
    root, running = clusters
    wait_for_files([root / name / "all_done" for name in contract.NAMES], list(running.values()))
    return root


def losses(folder: Path) -> NDArray[np.float64]:
    return pd.read_csv(folder / LOSS_CURVE)["loss"].to_numpy()


def state(folder: Path) -> dict[str, NDArray[Any]]:
    """Everything that a training leaves the next one, by its name in the checkpoint."""
    reader = tf.train.load_checkpoint(str(folder / "kept" / CHECKPOINT))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.endswith("VARIABLE_VALUE") and "save_counter" not in name
    }


def assert_same(found: Path, expected: Path) -> None:
    np.testing.assert_allclose(losses(found), losses(expected), rtol=2e-5)
    ours, theirs = state(found), state(expected)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        if values.dtype == np.int64:
            assert np.array_equal(ours[name], values), name  # steps, and the estimator's counts
        else:
            np.testing.assert_allclose(ours[name], values, rtol=2e-3, atol=2e-5, err_msg=name)


@each
def test_a_strategy_trains_as_one_device_does_on_the_same_global_batches(root: Path, name: str) -> None:
    assert_same(root / name / "first", root / "one_device" / "first")


@each
@pairs
def test_a_day_continues_from_any_strategys_state(root: Path, name: str, other: str) -> None:
    assert_same(root / name / "after" / other, root / "one_device" / "after" / "one_device")


@each
@pairs
def test_a_strategy_continues_a_killed_attempt_of_any_other(root: Path, name: str, other: str) -> None:
    assert_same(root / name / "continued" / other, root / "one_device" / "first")


def test_a_worker_of_parameter_servers_may_go_away_and_come_back(
    root: Path, clusters: tuple[Path, dict[str, Cluster]]
) -> None:
    cluster = clusters[1]["parameter_server"]
    (root / "go").touch()
    folder = root / "parameter_server"
    wait_for_files([folder / "unfinished_long" / "checkpoint"], [cluster])
    cluster.restart("worker", 0)
    assert not (folder / "long_done").exists()
    wait_for_files([folder / "long_done"], [])
    assert len(losses(folder / "long")) == contract.LONG_EPOCHS
    # A step that the worker took and could not tell of is taken again.
    step = state(folder / "long")["rest/iterations/.ATTRIBUTES/VARIABLE_VALUE"]
    assert (
        contract.STEPS_PER_EPOCH * contract.LONG_EPOCHS <= step <= contract.STEPS_PER_EPOCH * contract.LONG_EPOCHS + 2
    )


def test_several_workers_of_parameter_servers_train_at_their_own_pace_and_without_one_that_is_gone(
    forks: Forks, root: Path
) -> None:
    folder = root / "own_pace"
    here = contract.Day(root / "alone", contract.FIRST, strategies.one_device())
    here.go_on_from(root / "zero" / "kept")
    here.train(
        root / "alone", root / "alone" / "unfinished",
        epochs=contract.LONG_EPOCHS, checkpoint_steps=contract.LONG_CHECKPOINT_STEPS,
    )  # fmt: skip
    here.save(root / "alone" / "kept")
    jobs = {"chief": [["own_pace", str(root)]], "worker": [["worker"]] * 2, "ps": [["worker"]] * 2}
    cluster = Cluster(forks, jobs, root / "own_pace_of")
    try:
        wait_for_files([folder / "unfinished" / "checkpoint"], [cluster])
        cluster.kill("worker", 1)
        left = checkpoint_number(folder)
        wait_for(lambda: checkpoint_number(folder) > left + 2 * contract.STEPS_PER_EPOCH, "the other worker")
        cluster.restart("worker", 1)
        wait_for_files([folder / "done"], [])
    finally:
        cluster.end()
    taken, alone = state(folder), state(root / "alone")
    steps = contract.STEPS_PER_EPOCH * contract.LONG_EPOCHS
    # Every step of either worker counts; one that was taken and could not be told of is taken again.
    assert steps <= taken["rest/iterations/.ATTRIBUTES/VARIABLE_VALUE"] <= steps + 2
    assert steps <= taken["frequency/step/.ATTRIBUTES/VARIABLE_VALUE"] <= steps + 2
    # Other batches in another order, with gradients of older weights: near, not the same.
    np.testing.assert_allclose(losses(folder)[-10:].mean(), losses(root / "alone")[-10:].mean(), rtol=0.1)
    means = "frequency/means/.ATTRIBUTES/VARIABLE_VALUE"
    gap, count = alone[means].T
    often = gap < 2  # steps
    np.testing.assert_allclose((taken[means][:, 1] / taken[means][:, 0])[often], (count / gap)[often], rtol=0.3)


def test_a_slow_worker_takes_fewer_steps_and_every_step_is_taken_once(forks: Forks, tmp_path: Path) -> None:
    # A worker that is stopped keeps its task of 3 steps, while the other takes all the rest.
    jobs = {"chief": [["count_steps", str(tmp_path)]], "worker": [["worker"]] * 2, "ps": [["worker"]]}
    cluster = Cluster(forks, jobs, tmp_path / "counting")

    def left() -> int:
        return contract.STEPS_COUNTED - len(list(tmp_path.glob("step-*")))

    try:
        wait_for_files([tmp_path / "ready"], [cluster])
        cluster.signal("worker", 1, SIGSTOP)
        (tmp_path / "go").touch()
        wait_for(lambda: left() <= contract.STEPS_OF_A_TASK, "the other worker")
        assert left() == contract.STEPS_OF_A_TASK
        assert not (tmp_path / "counts").exists()
        cluster.signal("worker", 1, SIGCONT)
        wait_for_files([tmp_path / "counts"], [cluster])
    finally:
        cluster.end()
    assert json.loads((tmp_path / "counts").read_text()) == [1] * contract.STEPS_COUNTED


def test_four_workers_of_parameter_servers_estimate_true_frequencies(forks: Forks, tmp_path: Path) -> None:
    # Without turns, of two workers that read a bucket before either has written, one is lost: .52 of the head.
    found = tmp_path / "ratios.json"
    jobs = {"chief": [["estimates", str(found)]], "worker": [["worker"]] * 4, "ps": [["worker"]]}
    cluster = Cluster(forks, jobs, tmp_path / "estimates")
    try:
        wait_for_files([found], [cluster])
    finally:
        cluster.end()
    assert json.loads(found.read_text()) == {group: pytest.approx(1.0, abs=0.03) for group in ("head", "torso", "tail")}


def checkpoint_number(folder: Path) -> int:
    """By the files' names; what TensorFlow says is the latest may have just been removed for the next."""
    return max((int(path.stem.rpartition("-")[2]) for path in (folder / "unfinished").glob("ckpt-*.index")), default=0)


def test_only_the_chief_leaves_anything(root: Path) -> None:
    assert not list(root.rglob(contract.OF_A_WORKER))
    for name in contract.NAMES:
        assert [path.name for path in (root / name / "unfinished").glob("*.index")] == ["ckpt-6.index"]
