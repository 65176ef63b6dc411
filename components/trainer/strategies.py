"""The devices of a training: TensorFlow's distribution strategies, by configuration.

One device, `mirrored`, `multi_worker_mirrored` and `tpu` train *in step*: each replica has its share of the same global batch, its
negatives are the items of the whole batch, and gradients, estimates and losses equal those of one device at that batch.

With `parameter_server` every worker trains on its own batches and does not wait for the others, as in the paper's system
(section 4.3). A step has no global batch:

- a step is one worker's, of `batch_size` rows, and its negatives are its own rows' items;
- a worker reads weights that others may be about to change, so with several workers the loss curve is not that of one device;
- the estimator's tables are on one parameter server, shared by all workers, which update it one after the other: its steps are
  those of all workers together, and its estimates are for a batch of one worker;
- in an epoch each worker draws from its share of the batches. A fast one starts its share again while a slow one has not finished
  its own; so does one that was lost and restarted.

TF_CONFIG tells each process its role; see `components.trainer.worker`.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import tensorflow as tf

from components.trainer.inputs import Batch
from components.trainer.settings import StrategySettings
from components.trainer.towers import Parts, undivided
from schemas.errors import UserError

TF_CONFIG = "TF_CONFIG"
# TensorFlow's errors for a process that went away.
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class _Writing:
    """Decides which process writes.

    Attributes:
        is_chief: whether this process is the one that writes.
    """

    is_chief: bool

    @contextmanager
    def written(self, folder: str) -> Iterator[str]:
        """Yield the path to write a folder's content to: the folder itself, or on other processes a temporary one.

        All processes of a strategy must save the state together: the estimator's tables belong to one replica.
        """
        if self.is_chief:
            yield folder
            return
        with tempfile.TemporaryDirectory() as aside:
            yield aside


class InStep(_Writing):
    """Replicas that take every step together.

    Args:
        strategy: a strategy of TensorFlow.
        is_chief: whether this process is the one that writes.

    Attributes:
        strategy: models are made and trained in its scope.
        is_chief: see above.
        replicas: the number of replicas that share a global batch.
        parts: the number of shards of a table.
        has_weights: whether the weights are on this machine's devices, so that they can be exported from there.
    """

    def __init__(self, strategy: tf.distribute.Strategy, is_chief: bool = True) -> None:
        self.strategy = strategy
        self.is_chief = is_chief
        self.replicas = int(strategy.num_replicas_in_sync)
        self.parts: Parts = undivided
        self.has_weights = True

    def feed(self, batches: Callable[[], tf.data.Dataset]) -> Iterator[Any]:
        """Return the input of `run`.

        Args:
            batches: makes the global batches, each a `Batch`, the same in every process.
        """
        return iter(self.strategy.distribute_datasets_from_function(lambda context: share_of(batches(), context)))

    def run(self, step: Callable[[Any], Any], feed: Iterator[Any], steps: int) -> None:
        """Take steps, and return when they are done.

        Args:
            step: the result of Keras's `make_train_function`.
            feed: see `feed`.
            steps: the number of steps.
        """
        for _ in range(steps):
            step(feed)

    def hand_over(self, text: str) -> str:
        """Return the chief's text in every process, once all processes have called this.

        Args:
            text: not empty; only the chief's counts.
        """
        if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return _from_the_first_replica(self.strategy, text)
        return text

    def part(self) -> None:
        """Wait at shutdown for all processes, because the first to exit would kill the rest.

        A process that exits early can look to a slower one as if it had failed.
        """
        with suppress(*GONE):
            self.hand_over("the end")


class ParameterServers(_Writing):
    """Workers that train at their own pace on weights on parameter servers; this process coordinates them.

    Args:
        strategy: a strategy of TensorFlow.
        workers: the number of workers.
        parts: the number of shards of a table.

    Attributes: as in `InStep`.
    """

    def __init__(self, strategy: tf.distribute.ParameterServerStrategy, workers: int, parts: Parts) -> None:
        self.strategy = strategy
        self.is_chief = True
        self.replicas = int(strategy.num_replicas_in_sync)  # of a worker
        self.parts = parts
        self.has_weights = False
        self._workers = workers
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    def feed(self, batches: Callable[[], tf.data.Dataset]) -> Iterator[Any]:
        """As in `InStep`; a worker draws from its share of the batches."""

        @tf.function
        def of_a_worker() -> Any:
            worker = tf.distribute.coordinator.experimental_get_current_worker_index()
            worker_batches = batches().shard(self._workers, worker).repeat()
            return self.strategy.distribute_datasets_from_function(lambda context: share_of(worker_batches, context))

        return iter(self._coordinator.create_per_worker_dataset(of_a_worker))

    def run(self, step: Callable[[Any], Any], feed: Iterator[Any], steps: int) -> None:
        """As in `InStep`. If a worker is lost, this waits for it and gives its step to another."""
        for _ in range(steps):
            self._coordinator.schedule(step, args=(feed,))
        self._coordinator.join()

    def hand_over(self, text: str) -> str:
        """As in `InStep`; the others need no text."""
        return text

    def part(self) -> None:
        """As in `InStep`; the others serve until they are ended."""


Devices = InStep | ParameterServers


def one_device() -> InStep:
    """Use the device that TensorFlow chooses: the first GPU, or the CPU."""
    return InStep(tf.distribute.get_strategy())


def make(settings: StrategySettings) -> Devices:
    """Set up the devices of a configuration. Several processes wait for each other here.

    Raises:
        UserError: a device is missing, or TF_CONFIG does not say which process this is.
    """
    match settings.kind:
        case "one_device":
            return one_device()
        case "mirrored":
            return InStep(mirrored(_existing(settings.devices)))
        case "multi_worker_mirrored":
            task = _task("multi_worker_mirrored")
            return InStep(_in_a_new_process(tf.distribute.MultiWorkerMirroredStrategy), is_chief(task))
        case "parameter_server":
            return _parameter_servers(settings)
        case "tpu":
            return InStep(_tpu(settings.tpu))


@cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the process's one strategy over some of its devices; by default over all GPUs.

    There is only one, because collective operations match by numbers that every strategy counts from the same start, and TensorFlow
    remembers the shapes of a number: it would reject the second day of a backfill, whose tables have other rows.
    """
    return tf.distribute.MirroredStrategy(list(devices) or None)


def share_of(batches: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Select one process's rows of global batches: an element holds the rows of one replica, replicas in turn.

    The shapes stay static.

    Args:
        batches: each a `Batch` whose number of rows is a multiple of the replicas.
        context: TensorFlow's, with the number of this process and of all replicas.
    """
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return batches
    local_replicas = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local_replicas

    def own(rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [replicas, -1, *rows.shape[1:]])[first : first + local_replicas]

    def shares(batch: Batch) -> Batch:
        return tf.nest.map_structure(own, batch)

    return batches.map(shares, num_parallel_calls=tf.data.AUTOTUNE).unbatch().prefetch(tf.data.AUTOTUNE)


def task_of(config: str) -> dict[str, Any]:
    """Parse TF_CONFIG: the cluster, and this process's role in it.

    Returns:
        `cluster`, the addresses by job, and `type` and `index`.

    Raises:
        UserError: it does not have that form.
    """
    try:
        parsed = json.loads(config)
        cluster, task = parsed["cluster"], parsed["task"]
        kind, index = str(task["type"]), int(task["index"])
        address = cluster[kind][index]
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            "TF_CONFIG: expected JSON with the addresses of all processes by job, and the role of this one, such as "
            '{"cluster": {"chief": ["host-0:2222"], "worker": ["host-1:2222"]}, "task": {"type": "worker", "index": 0}}, '
            f"received {config or 'nothing'}. deploy/base/trainer sets it in each pod."
        ) from error
    return {"cluster": cluster, "type": kind, "index": index, "address": address}


def is_chief(task: dict[str, Any]) -> bool:
    """Return whether a process writes: the chief, or the first worker if there is no chief."""
    return task["type"] == "chief" or (
        "chief" not in task["cluster"] and (task["type"], task["index"]) == ("worker", 0)
    )


def _task(kind: str) -> dict[str, Any]:
    config = os.environ.get(TF_CONFIG, "")
    if not config:
        raise UserError(
            f"trainer.strategy.kind {kind}: expected the environment variable TF_CONFIG with all processes and the role of this "
            "one; it is not set. Run the Trainer's step as the chief of deploy/base/trainer, or choose another kind."
        )
    return task_of(config)


def _existing(devices: tuple[str, ...]) -> tuple[str, ...]:
    def comparable(name: str) -> tuple[str | None, int | None]:
        spec = tf.DeviceSpec.from_string(name)
        return spec.device_type, spec.device_index

    existing = [device.name for device in tf.config.list_logical_devices()]
    for name in devices:
        try:
            exists = comparable(name) in map(comparable, existing)
        except ValueError:
            exists = False
        if not exists:
            raise UserError(f"trainer.strategy.devices: expected some of {', '.join(existing)}, received {name}.")
    return devices


def _in_a_new_process(make_strategy: Callable[[], tf.distribute.Strategy]) -> tf.distribute.Strategy:
    try:
        return make_strategy()
    except RuntimeError as error:
        raise UserError(
            "trainer.strategy.kind multi_worker_mirrored: expected a process that has not used TensorFlow yet, because it connects "
            f"to the others when it starts ({error}). Run the Trainer's step alone: "
            "python -m pipeline.run_node."
        ) from error


def _parameter_servers(settings: StrategySettings) -> ParameterServers:
    task = _task("parameter_server")
    cluster = task["cluster"]
    if task["type"] != "chief" or not cluster.get("worker") or not cluster.get("ps"):
        raise UserError(
            "trainer.strategy.kind parameter_server: expected a chief, at least one worker and at least one ps in TF_CONFIG, and "
            f"the Trainer's step to be the chief; received {', '.join(sorted(cluster))}, and this is {task['type']}."
        )
    strategy = tf.distribute.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        min_shard_bytes=settings.shard_bytes, max_shards=len(cluster["ps"])
    )

    def parts(rows: int, width: int) -> int:
        return int(partitioner(tf.TensorShape([rows, width]), tf.float32, 0)[0])

    return ParameterServers(strategy, len(cluster["worker"]), parts)


def _tpu(address: str) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(address)
    return tf.distribute.TPUStrategy(resolver)


def _from_the_first_replica(strategy: tf.distribute.Strategy, text: str) -> str:
    codes = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)  # collectives cannot transfer bytes

    @tf.function
    def on_replica() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        contribution = codes[: tf.where(tf.equal(context.replica_id_in_sync_group, 0), tf.size(codes), 0)]
        return context.all_gather(contribution, axis=0)

    with strategy.scope():
        gathered = strategy.experimental_local_results(strategy.run(on_replica))[0]
    return bytes(gathered.numpy().astype("uint8")).decode()
