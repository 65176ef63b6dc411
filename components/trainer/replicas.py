"""What a replica needs of the others: with one replica, nothing."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count() -> int:
    """How many replicas train in step; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def gather(rows: tf.Tensor) -> tf.Tensor:
    """A replica's rows to the rows of all replicas, in the replicas' order; differentiable.

    Args:
        rows: [rows, ...], as many on each replica.

    Returns:
        [replicas * rows, ...], the same on each replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or count() == 1:
        return rows
    rows = tf.identity(rows)  # what comes from a dataset lies on no device, of which the strategy makes an error
    first = None if rows.shape[0] is None else rows.shape[0] * count()
    return tf.ensure_shape(context.all_gather(rows, axis=0), [first, *rows.shape[1:]])  # collectives forget it


def first_row(rows: int | tf.Tensor) -> int | tf.Tensor:
    """Where this replica's rows begin among all gathered rows, each replica having as many."""
    context = tf.distribute.get_replica_context()
    if context is None or count() == 1:
        return 0
    return tf.cast(context.replica_id_in_sync_group, tf.int32) * rows


class Turns:
    """Lets the workers of parameter servers change a state that they share one after the other, each as a whole.

    Two that read before either has written would take back one of the two changes, the more often the more workers there are.
    Where replicas train in step each has a state of its own, and changes it at once.

    Args:
        state: a variable of the state, made in the strategy's scope; all that is changed lies on its device.
    """

    def __init__(self, state: tf.Variable) -> None:
        self._section: tf.CriticalSection | None = None
        if isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
            self._device = state.device
            with tf.init_scope(), tf.device(self._device):
                self._section = tf.CriticalSection(shared_name=f"turns_of_{state.name}")

    def run(self, change: Callable[[], Any]) -> Any:
        """Makes a change when it is this worker's turn.

        Args:
            change: reads and writes the state, and returns what must have run by its end.
        """
        if self._section is None:
            return change()
        with tf.device(self._device):  # all on the server, so that nobody waits for a worker's network
            return self._section.execute(change)
