"""What a replica needs of the others: with one replica, nothing."""

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
