"""The estimator on parameter servers: what several workers that count at once estimate, over what is true.

Real processes on this machine: a chief, a parameter server, and the workers (`components.trainer.worker`), which count batches of a
stream whose items' shares are known, each at its own pace, and do nothing else, so that they meet as often as they can.
The estimates of the whole stream are then held against share x batch size: of the head (the ten items that occur most), the torso,
and the tail (items of some tens of hits each, added up, as one alone is known no better than its hits tell). One worker beside them
says what is chance.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from components.trainer.settings import StrategySettings

ITEMS, BATCH, BATCHES, STEPS_OF_A_TASK = 2_000, 1024, 2_000, 10
BUCKETS, HASHES = 1 << 20, 1
GROUPS = {"head": slice(0, 10), "torso": slice(10, 200), "tail": slice(200, ITEMS)}
WORKERS = (1, 4, 8)

Shares = NDArray[np.float64]


def shares() -> Shares:
    """[ITEMS] the share of each in the stream: Zipf's."""
    weights = 1.0 / np.arange(1, ITEMS + 1)
    return weights / weights.sum()


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[None]:
    """Run workers and one parameter server, while this process, by TF_CONFIG, is their chief."""
    addresses = {job: [f"127.0.0.1:{_free_port()}" for _ in range(n)] for job, n in _jobs(workers).items()}
    before, processes = dict(os.environ), []
    try:
        for job in ("ps", "worker"):
            for index in range(len(addresses[job])):
                environment = {**before, "TF_CONFIG": _config(addresses, job, index), "TF_CPP_MIN_LOG_LEVEL": "2"}
                command = [sys.executable, "-m", "components.trainer.worker"]
                processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        os.environ["TF_CONFIG"] = _config(addresses, "chief", 0)
        os.environ["GRPC_FAIL_FAST"] = "use_caller"
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def estimated(batches: int, seed: int) -> Shares:
    """[ITEMS] the expected count of each item in a batch, after the workers of TF_CONFIG have counted so many batches."""
    import tensorflow as tf

    from components.trainer import strategies
    from components.trainer.epochs import OwnBatches
    from components.trainer.examples import Number
    from components.trainer.frequency import FrequencyEstimator

    devices = strategies.make(StrategySettings(kind="parameter_server"))
    with devices.strategy.scope():
        estimator = FrequencyEstimator(BUCKETS, HASHES)
    upper = tf.constant(np.cumsum(shares()))

    def batch(number: tf.Tensor) -> tf.Tensor:
        points = tf.random.stateless_uniform([BATCH], seed=[seed, number], dtype=tf.float64)
        return tf.searchsorted(upper, points, out_type=tf.int64)

    @tf.function
    def step(feed: Any) -> None:
        devices.strategy.run(lambda ids: estimator.update(tf.reshape(ids, [BATCH])), (next(feed),))

    def remaining(_: Number, skip: Number) -> tf.data.Dataset:
        return tf.data.Dataset.range(skip, batches).map(batch)

    feed = devices.feed(OwnBatches(remaining), 0, 0, STEPS_OF_A_TASK)
    feed.take(step, batches)
    return estimator.estimate(tf.range(ITEMS, dtype=tf.int64)).numpy().astype(np.float64)


def ratios(found: Shares) -> dict[str, float]:
    """Estimate over expected count, by group."""
    expected = shares() * BATCH
    return {name: float(found[items].sum() / expected[items].sum()) for name, items in GROUPS.items()}


def write_ratios(file: Path, batches: int = BATCHES, seed: int = 0) -> None:
    """Write `ratios` as JSON; this process is the chief of the cluster that TF_CONFIG names."""
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(ratios(estimated(batches, seed))))
    aside.rename(file)


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="how many, one after the other")
    arguments.add_argument("--batches", type=int, default=BATCHES, help="that all workers count together")
    arguments.add_argument("--seed", type=int, default=0, help="of the stream")
    arguments.add_argument("--of", type=int, help=argparse.SUPPRESS)  # one number of workers, in a process of its own
    arguments.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.of:
        with cluster(chosen.of):
            write_ratios(chosen.to, chosen.batches, chosen.seed)
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for workers in chosen.workers:
            file = Path(folder, str(workers))
            command = [sys.executable, "-m", "benchmarks.workers", "--of", str(workers), "--to", str(file)]
            command += ["--batches", str(chosen.batches), "--seed", str(chosen.seed)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            figures[workers] = json.loads(file.read_text())
    common.show(
        "estimate over expected count",
        ["workers", *GROUPS],
        [[str(workers), *(f"{of[name]:.3f}" for name in GROUPS)] for workers, of in figures.items()],
    )
    headline = {f"{name}_ratio_{workers}": of[name] for workers, of in figures.items() for name in ("head", "tail")}
    settings = {"items": ITEMS, "batch": BATCH, "batches": chosen.batches, "buckets": BUCKETS, "seed": chosen.seed}
    common.conclude(chosen.json, settings, figures, headline)


def _jobs(workers: int) -> dict[str, int]:
    return {"chief": 1, "ps": 1, "worker": workers}


def _config(addresses: dict[str, list[str]], job: str, index: int) -> str:
    return json.dumps({"cluster": addresses, "task": {"type": job, "index": index}})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
