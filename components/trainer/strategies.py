"""The devices of a training: TensorFlow's distribution strategies, by configuration.

One device, `mirrored`, `multi_worker_mirrored` and `tpu` train *in step*: each replica has its share of the same global batch, its
negatives are the items of the whole batch, and gradients, estimates and losses equal those of one device at that batch. Each
process reads its own share of the split, from which all its rows of every batch are.

With `parameter_server` every worker trains on its own batches and does not wait for the others, as in the paper's system
(section 4.3). A step has no global batch:

- a step is one worker's, of `batch_size` rows, and its negatives are its own rows' items;
- a worker reads weights that others may be about to change, so with several workers the loss curve is not that of one device;
- the estimator's tables are on one parameter server, shared by all workers, which update it one after the other: its steps are
  those of all workers together, and its estimates are for a batch of one worker;
- an epoch is divided into tasks of some steps, which read their own rows of the split. Whoever is free takes the next one, so a
  slow worker takes fewer, and every example is trained on once. A lost worker's task is given to another, which takes its steps
  from the first.

TF_CONFIG tells each process its role; see `components.trainer.worker`.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from components.trainer.epochs import Epochs
from components.trainer.examples import WINDOW_EXAMPLES, Task
from components.trainer.inputs import Batch
from components.trainer.settings import StrategySettings, TrainerSettings
from components.trainer.towers import Parts, undivided
from schemas.errors import UserError

TF_CONFIG = "TF_CONFIG"
# So that a slow worker, or one that comes late, leaves the others something to do.
TASKS_OF_A_WORKER = 8
# TensorFlow's errors for a process that went away.
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


Step = Callable[[Any], Any]
"""Takes a step, given an iterator; the result of Keras's `make_train_function`."""


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
        processes: the number of processes that read.

    Attributes:
        strategy: models are made and trained in its scope.
        is_chief: see above.
        replicas: the number of replicas that share a global batch.
        parts: the number of shards of a table.
        has_weights: whether the weights are on this machine's devices, so that they can be exported from there.
    """

    def __init__(self, strategy: tf.distribute.Strategy, is_chief: bool = True, processes: int = 1) -> None:
        self.strategy = strategy
        self.is_chief = is_chief
        self._processes = processes
        self.replicas = int(strategy.num_replicas_in_sync)
        self.parts: Parts = undivided
        self.has_weights = True

    divided = "shares"

    def division(self, settings: TrainerSettings, steps_per_epoch: int) -> int:
        """Return how an epoch is divided among processes; `divided` names what the number is of."""
        return self._processes

    def feed(self, epochs: Epochs, epoch: int, skip: int, division: int) -> "Feed":
        """Return an epoch's input.

        Args:
            epochs: the same in every process.
            epoch: its number.
            skip: the steps that were taken before.
            division: see `division`; in an epoch that another attempt began, that attempt's.
        """

        def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
            process, processes = context.input_pipeline_id, context.num_input_pipelines
            batches = epochs.batches(epoch, skip, division, process, processes)
            return of_replicas(batches, context.num_replicas_in_sync // processes)

        return Iterated(iter(self.strategy.distribute_datasets_from_function(own)))

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
        self._taken: tuple[Step, Epochs, Callable[[Task, Any], None], Any] | None = None

    divided = "steps_of_a_task"

    def division(self, settings: TrainerSettings, steps_per_epoch: int) -> int:
        """As in `InStep`: the most steps of a task, so that each worker has several until all wait for a checkpoint."""
        together = min(steps_per_epoch, settings.checkpoint_steps)
        most = -(-WINDOW_EXAMPLES // settings.batch_size)
        return min(-(-together // (self._workers * TASKS_OF_A_WORKER)), most)

    def feed(self, epochs: Epochs, epoch: int, skip: int, division: int) -> "Feed":
        """As in `InStep`. If a worker is lost, its task is given to another."""
        return Tasks(self._schedule, epochs, epoch, skip, division)

    def _schedule(self, step: Step, epochs: Epochs, tasks: Sequence[Task]) -> None:
        """Give tasks to the workers, and return when they are done."""
        if self._taken is None or self._taken[:2] != (step, epochs):
            self._taken = step, epochs, self._taking(step, epochs), self._held_by_workers(epochs)
        _, _, take, held = self._taken
        for task in tasks:
            self._coordinator.schedule(take, args=(tf.nest.map_structure(_tensor, task), held))
        self._coordinator.join()

    def _taking(self, step: Step, epochs: Epochs) -> Callable[[Task, Any], None]:
        """Return what a worker does with a task, traced for tasks with one file and with several."""

        @tf.function(reduce_retracing=True)
        def take(task: Task, held_by_worker: Any) -> None:
            _, held = next(held_by_worker)
            feed = iter(
                self.strategy.distribute_datasets_from_function(
                    lambda context: of_replicas(epochs.of_task(task, held), context.num_replicas_in_sync)
                )
            )
            for _ in tf.range(task.steps):
                step(feed)

        return take

    def _held_by_workers(self, epochs: Epochs) -> Any:
        """Send each worker what it needs for any task; an argument of a task would be sent with each."""
        held = epochs.held()
        return iter(
            self._coordinator.create_per_worker_dataset(lambda: tf.data.Dataset.from_tensors((0, held)).repeat())
        )

    def hand_over(self, text: str) -> str:
        """As in `InStep`; the others need no text."""
        return text

    def part(self) -> None:
        """As in `InStep`; the others serve until they are ended."""


class Feed(Protocol):
    """An epoch's input."""

    def take(self, step: Step, steps: int) -> None:
        """Take the next steps, and return when they are done.

        Args:
            step: takes one.
            steps: their number.
        """


class Iterated:
    """The batches of an iterator."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def take(self, step: Step, steps: int) -> None:
        """See `Feed`."""
        for _ in range(steps):
            step(self._batches)


class Tasks:
    """An epoch's steps, handed out as tasks.

    Args:
        schedule: gives tasks to the workers, and returns when they are done.
        epochs: see `InStep.feed`.
        epoch: see `InStep.feed`.
        skip: see `InStep.feed`.
        at_most: the most steps of a task.
    """

    def __init__(
        self,
        schedule: Callable[[Step, Epochs, Sequence[Task]], None],
        epochs: Epochs,
        epoch: int,
        skip: int,
        at_most: int,
    ) -> None:
        self._schedule, self._epochs, self._epoch, self._skip, self._at_most = schedule, epochs, epoch, skip, at_most

    def take(self, step: Step, steps: int) -> None:
        """See `Feed`."""
        self._schedule(step, self._epochs, list(self._epochs.tasks(self._epoch, self._skip, steps, self._at_most)))
        self._skip += steps


def _tensor(values: Any) -> tf.Tensor:
    return tf.constant(values, tf.string if np.asarray(values).dtype.kind == "U" else tf.int64)


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
            processes = sum(len(task["cluster"].get(job, [])) for job in ("chief", "worker"))
            return InStep(_in_a_new_process(tf.distribute.MultiWorkerMirroredStrategy), is_chief(task), processes)
        case "parameter_server":
            return _parameter_servers(settings)
        case "tpu":
            strategy = _tpu(settings.tpu)
            return InStep(strategy, processes=strategy.extended.num_hosts)


@cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Return the process's one strategy over some of its devices; by default over all GPUs.

    There is only one, because collective operations match by numbers that every strategy counts from the same start, and TensorFlow
    remembers the shapes of a number: it would reject the second day of a backfill, whose tables have other rows.
    """
    return tf.distribute.MirroredStrategy(list(devices) or None)


def of_replicas(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Divide a process's batches: an element holds the rows of one replica, replicas in turn. The shapes stay static.

    Args:
        batches: each a `Batch` whose number of rows is a multiple of the replicas.
        replicas: the number of this process's.
    """
    if replicas == 1:
        return batches

    def of_each(rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, [replicas, -1, *rows.shape[1:]])

    def divided(batch: Batch) -> Batch:
        return tf.nest.map_structure(of_each, batch)

    return batches.map(divided, num_parallel_calls=tf.data.AUTOTUNE).unbatch().prefetch(tf.data.AUTOTUNE)


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
