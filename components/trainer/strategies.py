"""The devices that a training runs on: TensorFlow's distribution strategies, by configuration.

One device, `mirrored`, `multi_worker_mirrored` and `tpu` train *in step*: each replica has its share of the same global batch, its
negatives are the items of the whole of it, and gradients, estimates and losses are those of one device at that batch.

With `parameter_server` every worker trains on a batch of its own and does not wait for the others, as in the paper's system
(section 4.3). There is no global batch in a step:

- a step is one worker's, of `batch_size` rows, and its negatives are its own rows' items;
- a worker reads weights that others may be about to change, so with several the loss curve is not that of one device;
- the estimator's tables are on one parameter server, shared by all workers, which count one after the other: its steps are those of
  all workers together, and its estimates those of a batch of one worker;
- in an epoch each worker draws from a share of the batches. A fast one begins its share again where a slow one has not ended its
  own; so does one that was lost and came back.

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
# What TensorFlow says of a process that went away.
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


class _Writing:
    """Who writes.

    Attributes:
        is_chief: whether this process is the one that writes.
    """

    is_chief: bool

    @contextmanager
    def written(self, folder: str) -> Iterator[str]:
        """Where to write what belongs into a folder: there, or aside where it is dropped.

        To save the state is something that all processes of a strategy do together: the estimator's tables are one replica's.
        """
        if self.is_chief:
            yield folder
            return
        with tempfile.TemporaryDirectory() as aside:
            yield aside


class InStep(_Writing):
    """Replicas that take every step together.

    Args:
        strategy: TensorFlow's.
        is_chief: whether this process is the one that writes.

    Attributes:
        strategy: its scope is where models are made and trained.
        is_chief: see above.
        replicas: how many share a global batch.
        parts: into how many parts a table is divided.
        has_weights: whether the weights are on this machine's devices, so that they can be exported from there.
    """

    def __init__(self, strategy: tf.distribute.Strategy, is_chief: bool = True) -> None:
        self.strategy = strategy
        self.is_chief = is_chief
        self.replicas = int(strategy.num_replicas_in_sync)
        self.parts: Parts = undivided
        self.has_weights = True

    def feed(self, batches: Callable[[], tf.data.Dataset]) -> Iterator[Any]:
        """What `run` trains on.

        Args:
            batches: makes the global batches, each a `Batch`, the same in every process.
        """
        feed: Iterator[Any] = iter(
            self.strategy.distribute_datasets_from_function(lambda context: share_of(batches(), context))
        )
        return feed

    def run(self, step: Callable[[Any], Any], feed: Iterator[Any], steps: int) -> None:
        """Takes steps, and returns when they are done.

        Args:
            step: what Keras's `make_train_function` gives.
            feed: see `feed`.
            steps: how many.
        """
        for _ in range(steps):
            step(feed)

    def hand_over(self, text: str) -> str:
        """The chief's text in every process; returns once all have come here.

        Args:
            text: not empty; only the chief's counts.
        """
        if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return _from_the_first_replica(self.strategy, text)
        return text

    def part(self) -> None:
        """Returns once all have come here, where nothing is left to do: a process that ends takes the others with it.

        One that ends as soon as it may can look to a slower one as if it had gone away before.
        """
        with suppress(*GONE):
            self.hand_over("the end")


class ParameterServers(_Writing):
    """Workers that train each at its own pace on weights that are on parameter servers; this process tells them what to do.

    Args:
        strategy: TensorFlow's.
        workers: how many there are.
        parts: into how many parts a table is divided.

    Attributes: as of `InStep`.
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
        """As of `InStep`; a worker draws from its share of the batches."""

        @tf.function
        def of_a_worker() -> Any:
            worker = tf.distribute.coordinator.experimental_get_current_worker_index()
            own = batches().shard(self._workers, worker).repeat()
            return self.strategy.distribute_datasets_from_function(lambda context: share_of(own, context))

        feed: Iterator[Any] = iter(self._coordinator.create_per_worker_dataset(of_a_worker))
        return feed

    def run(self, step: Callable[[Any], Any], feed: Iterator[Any], steps: int) -> None:
        """As of `InStep`. A worker that is lost is waited for, and its step goes to another."""
        for _ in range(steps):
            self._coordinator.schedule(step, args=(feed,))
        self._coordinator.join()

    def hand_over(self, text: str) -> str:
        """As of `InStep`; the others need no text."""
        return text

    def part(self) -> None:
        """As of `InStep`; the others serve until they are ended."""


Devices = InStep | ParameterServers


def one_device() -> InStep:
    """Wherever TensorFlow puts it: the first GPU, or the processor."""
    return InStep(tf.distribute.get_strategy())


def make(settings: StrategySettings) -> Devices:
    """The devices of a configuration. Several processes wait here for each other.

    Raises:
        UserError: a device is not there, or TF_CONFIG does not say which process this is.
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
    """The one strategy of a process over some of its devices; over all GPUs where none is named.

    One, because collective operations find each other by numbers that every strategy counts from the same start, and TensorFlow
    keeps the shapes of a number: the second day of a backfill, whose tables have other rows, would be refused for the first's.
    """
    return tf.distribute.MirroredStrategy(list(devices) or None)


def share_of(batches: tf.data.Dataset, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """What the replicas of one process have of global batches: each replica's rows as an element, one replica behind the other.

    The shapes stay static.

    Args:
        batches: each a `Batch` whose parts' rows are a multiple of the replicas.
        context: TensorFlow's: which process this is, and how many replicas there are in all.
    """
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return batches
    each = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * each

    def own(rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [replicas, -1, *rows.shape[1:]])[first : first + each]

    def shares(batch: Batch) -> Batch:
        mapped: Batch = tf.nest.map_structure(own, batch)
        return mapped

    return batches.map(shares, num_parallel_calls=tf.data.AUTOTUNE).unbatch().prefetch(tf.data.AUTOTUNE)


def task_of(config: str) -> dict[str, Any]:
    """TF_CONFIG's cluster, and which process of it this is.

    Returns:
        `cluster`, the addresses by job, and `type` and `index`.

    Raises:
        UserError: it is not of that form.
    """
    try:
        parsed = json.loads(config)
        cluster, task = parsed["cluster"], parsed["task"]
        kind, index = str(task["type"]), int(task["index"])
        address = cluster[kind][index]
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            "TF_CONFIG: expected JSON with the addresses of all processes by job, and which of them this is, such as "
            '{"cluster": {"chief": ["host-0:2222"], "worker": ["host-1:2222"]}, "task": {"type": "worker", "index": 0}}, '
            f"received {config or 'nothing'}. deploy/base/trainer sets it in each pod."
        ) from error
    return {"cluster": cluster, "type": kind, "index": index, "address": address}


def is_chief(task: dict[str, Any]) -> bool:
    """Whether a process is the one that writes: the chief, or the first worker where there is no chief."""
    return task["type"] == "chief" or (
        "chief" not in task["cluster"] and (task["type"], task["index"]) == ("worker", 0)
    )


def _task(kind: str) -> dict[str, Any]:
    config = os.environ.get(TF_CONFIG, "")
    if not config:
        raise UserError(
            f"trainer.strategy.kind {kind}: expected the environment variable TF_CONFIG to say which processes there are and "
            "which of them this is; it is not set. Run the Trainer's step as the chief of deploy/base/trainer, or choose "
            "another kind."
        )
    return task_of(config)


def _existing(devices: tuple[str, ...]) -> tuple[str, ...]:
    def comparable(name: str) -> tuple[str | None, int | None]:
        spec = tf.DeviceSpec.from_string(name)
        return spec.device_type, spec.device_index

    there = [device.name for device in tf.config.list_logical_devices()]
    for name in devices:
        try:
            is_there = comparable(name) in map(comparable, there)
        except ValueError:
            is_there = False
        if not is_there:
            raise UserError(f"trainer.strategy.devices: expected some of {', '.join(there)}, received {name}.")
    return devices


def _in_a_new_process(make_strategy: Callable[[], tf.distribute.Strategy]) -> tf.distribute.Strategy:
    try:
        return make_strategy()
    except RuntimeError as error:
        raise UserError(
            "trainer.strategy.kind multi_worker_mirrored: expected a process in which TensorFlow has not been used, as its "
            f"connections to others are made when it starts ({error}). Run the Trainer's step by itself: "
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
    codes = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)  # collectives cannot carry bytes

    @tf.function
    def on_replica() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        own = codes[: tf.where(tf.equal(context.replica_id_in_sync_group, 0), tf.size(codes), 0)]
        return context.all_gather(own, axis=0)

    with strategy.scope():
        gathered = strategy.experimental_local_results(strategy.run(on_replica))[0]
    return bytes(gathered.numpy().astype("uint8")).decode()
