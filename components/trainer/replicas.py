"""Communication between replicas; does nothing with one replica."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count() -> int:
    """Return the number of replicas that train in step; 1 without a strategy."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def gather(rows: tf.Tensor) -> tf.Tensor:
    """Gather a replica's rows to the rows of all replicas, in the replicas' order; differentiable.

    Args:
        rows: [rows, ...], the same number on each replica.

    Returns:
        [replicas * rows, ...], the same on each replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or count() == 1:
        return rows
    rows = tf.identity(rows)  # a dataset's tensor lies on no device, which the strategy rejects
    first = None if rows.shape[0] is None else rows.shape[0] * count()
    # Collectives lose the static shape.
    return tf.ensure_shape(context.all_gather(rows, axis=0), [first, *rows.shape[1:]])


class Turns:
    """Serialises changes of a state that the workers of parameter servers share.

    If two read before either has written, one of the two changes is lost; more workers lose more. Replicas that train in step each
    have their own state, and change it at once.

    Args:
        state: a variable of the state, made in the strategy's scope; all changed variables lie on its device.
    """

    def __init__(self, state: tf.Variable) -> None:
        self._section: tf.CriticalSection | None = None
        if isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
            self._device = state.device
            with tf.init_scope(), tf.device(self._device):
                self._section = tf.CriticalSection(shared_name=f"turns_of_{state.name}")

    def run(self, change: Callable[[], Any]) -> Any:
        """Make a change when it is this worker's turn.

        Args:
            change: reads and writes the state, and returns the operations that must have run by its end.
        """
        if self._section is None:
            return change()
        with tf.device(self._device):  # all on the server, so that nobody waits for a worker's network
            return self._section.execute(change)
