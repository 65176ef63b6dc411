"""Weights the items of histories by their position."""

import tensorflow as tf


def newer_items(is_item: tf.Tensor) -> tf.Tensor:
    """Count the newer items in a history: from [batch, last] bool, whether there is an item, to float32; 0 for none."""
    present = tf.cast(is_item, tf.float32)
    place = tf.cumsum(present, axis=1)
    return present * (tf.reduce_sum(present, axis=1, keepdims=True) - place)


def recency_weights(is_item: tf.Tensor, half_life: float | None) -> tf.Tensor:
    """Map [batch, last] bool to float32 weights: 1 for the newest, half for one `half_life` items further back, 0 for none."""
    present = tf.cast(is_item, tf.float32)
    return present if half_life is None else present * 0.5 ** (newer_items(is_item) / half_life)
