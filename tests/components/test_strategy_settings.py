"""Which strategy a configuration and TF_CONFIG make, who writes, and what of a batch each replica has."""

import json
import subprocess
import sys
from typing import Any

import pytest
import tensorflow as tf

from components.trainer import strategies, worker
from components.trainer.day import _shared_evenly
from components.trainer.epochs import OwnBatches, rows_of
from components.trainer.inputs import Batch
from components.trainer.settings import StrategySettings
from schemas.errors import UserError

TWO_DEVICES = StrategySettings(kind="mirrored", devices=("CPU:0", "CPU:1"))


def tf_config(kind: str, index: int, **cluster: int) -> str:
    """As `deploy/base/trainer` sets it."""
    addresses = {job: [f"ndr-trainer-{job}-{n}.ndr.svc:2222" for n in range(count)] for job, count in cluster.items()}
    return json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}, "environment": "cloud"})


@pytest.mark.parametrize(
    ("config", "writes"),
    [
        (tf_config("chief", 0, chief=1, worker=2), True),
        (tf_config("worker", 0, chief=1, worker=2), False),
        (tf_config("worker", 0, worker=2), True),
        (tf_config("worker", 1, worker=2), False),
        (tf_config("ps", 0, chief=1, worker=1, ps=1), False),
    ],
)
def test_the_chief_writes_or_the_first_worker_where_there_is_none(config: str, writes: bool) -> None:
    assert strategies.is_chief(strategies.task_of(config)) == writes


@pytest.mark.parametrize(
    "config", ["", "worker", "[]", "{}", tf_config("worker", 2, worker=2), tf_config("ps", 0, worker=2)]
)
def test_another_tf_config_is_refused(config: str) -> None:
    with pytest.raises(UserError, match="TF_CONFIG: expected JSON"):
        strategies.task_of(config)


def test_an_error_of_a_worker_that_quotes_an_escape_sequence_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["worker"])
    monkeypatch.setenv(strategies.TF_CONFIG, "\x1b[2J")
    with pytest.raises(SystemExit) as ended:
        worker.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "TF_CONFIG" in said and "\x1b" not in said


@pytest.mark.parametrize("kind", ["multi_worker_mirrored", "parameter_server"])
def test_several_processes_without_tf_config_are_refused(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.delenv(strategies.TF_CONFIG, raising=False)
    with pytest.raises(UserError, match=f"strategy.kind {kind}: expected the environment variable TF_CONFIG"):
        strategies.make(StrategySettings(kind=kind))


def test_workers_in_a_process_that_has_used_tensorflow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tf.constant(1).numpy() == 1
    monkeypatch.setenv(strategies.TF_CONFIG, tf_config("worker", 0, worker=2))
    with pytest.raises(UserError, match="expected a process that has not used TensorFlow yet"):
        strategies.make(StrategySettings(kind="multi_worker_mirrored"))


def test_parameter_servers_without_a_server_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(strategies.TF_CONFIG, tf_config("chief", 0, chief=1, worker=2))
    with pytest.raises(UserError, match="expected a chief, at least one worker and at least one ps"):
        strategies.make(StrategySettings(kind="parameter_server"))


@pytest.mark.parametrize("device", ["GPU:7", "CPU:9", "processor"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"devices: expected some of .*CPU:0.*, received {device}"):
        strategies.make(StrategySettings(kind="mirrored", devices=("CPU:0", device)))


def test_one_process_trains_days_with_tables_of_different_sizes() -> None:
    # "Shape mismatch in the collective instance" is what the second of them was told.
    for rows in (3, 5):
        strategy = strategies.make(TWO_DEVICES).strategy

        @tf.function
        def gathered(rows: int = rows) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(tf.ones([rows]), axis=0)

        (on_first, _) = strategy.experimental_local_results(strategy.run(gathered))
        assert on_first.shape == [2 * rows]


@pytest.mark.parametrize("pipeline", [0, 1])
def test_each_replica_has_its_rows_of_the_global_batch(pipeline: int) -> None:
    # 8 rows and 4 draws for 2 processes of 2 replicas: 2 rows and 1 draw each, the first process those of replicas 0 and 1.
    batches = tf.data.Dataset.from_tensor_slices(
        Batch({"row": tf.reshape(tf.range(16), [2, 8])}, {"draw": tf.reshape(tf.range(8), [2, 4])})
    )
    shares = strategies.of_replicas(rows_of(batches, pipeline, 2), 2)
    assert shares.element_spec.interactions["row"].shape == [2]
    expected = [[[0, 1], [2, 3], [8, 9], [10, 11]], [[4, 5], [6, 7], [12, 13], [14, 15]]]
    drawn = [[[0], [1], [4], [5]], [[2], [3], [6], [7]]]
    found = list(shares.as_numpy_iterator())
    assert [share.interactions["row"].tolist() for share in found] == expected[pipeline]
    assert [share.uniform_items["draw"].tolist() for share in found] == drawn[pipeline]


def test_a_batch_is_made_smaller_so_that_all_have_as_much_of_it() -> None:
    devices = strategies.make(TWO_DEVICES)
    assert [_shared_evenly("examples", rows, devices) for rows in (0, 2, 7, 8)] == [0, 2, 6, 8]
    with pytest.raises(UserError, match="expected at least one of 1 examples for each of 2 replicas"):
        _shared_evenly("examples", 1, devices)


def test_the_workers_help_and_errors_have_no_traceback() -> None:
    command = [sys.executable, "-m", "components.trainer.worker"]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "status  meaning" in told.stdout
    failed = subprocess.run(command, capture_output=True, text=True, env={"TF_CONFIG": tf_config("chief", 0, chief=1)})
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("TF_CONFIG: this process is the chief")
    assert "Traceback" not in failed.stderr


def test_a_feed_gives_a_shard_its_batches_in_order() -> None:
    rows = tf.data.Dataset.from_tensor_slices(Batch({"row": tf.range(6)}, {})).batch(2)
    feed = strategies.one_device().feed(OwnBatches(lambda epoch, skip: rows.skip(skip)), 0, 0, 1)
    found: list[int] = []
    feed.take(lambda batches: found.extend(next(batches).interactions["row"].numpy()), 3)
    assert found == list(range(6))
