"""Learned bonuses for items in a query's history, because people take the same items again.

The score of an item at the positions p = 1, 2, ... of a history, counted from the newest, is increased by

        level + slope * log(sum over its positions of p ** -decay)

Level, slope and decay are learned, three numbers for each history with repeats (`schemas.features.HistoryFeature`). The logarithm
is the base-level activation of ACT-R (Anderson and Schooler, "Reflections of the environment in memory", 1991), with positions
instead of times: a decay near 0 counts the occurrences of the item, a large one measures how recent it is. Where items are not
taken again, the level becomes negative.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from components.transform.missing import NO_ITEM
from schemas.features import FINGERPRINT_SUFFIX

FIRST_DECAY = 0.5  # as in ACT-R
LOWEST = -0.9
"""The lower bound of a bonus: then an inner product of unit vectors plus a bonus stays above -2, which stands for no item."""
WEIGHTS = ("level", "slope", "decay")


class Repeats(NamedTuple):
    """Items with a bonus for each query.

    Attributes:
        ids: [queries, entries] int64 fingerprints, each once per query; NO_ITEM for none.
        bonuses: [queries, entries] float32, added to the inner products of those items; 0 for none.
    """

    ids: tf.Tensor
    bonuses: tf.Tensor

    def of(self, items: tf.Tensor) -> tf.Tensor:
        """Map [queries] int64, an item for each query, to [queries] float32, the item's bonus."""
        return tf.reduce_sum(tf.where(self.ids == items[:, tf.newaxis], self.bonuses, 0.0), axis=1)


class RepeatBonus(tf_keras.layers.Layer):
    """Learns the bonuses; see the module.

    Args:
        histories: the names of the history features, at least one.
    """

    def __init__(self, histories: Iterable[str], name: str = "repeat_bonus") -> None:
        super().__init__(name=name)
        self.histories = tuple(histories)
        starts = dict(zip(WEIGHTS, (0.0, 0.0, FIRST_DECAY), strict=True))
        self.learned = {
            history: {
                weight: self.add_weight(
                    f"{history}_{weight}", shape=(), initializer=tf_keras.initializers.Constant(start)
                )
                for weight, start in starts.items()
            }
            for history in self.histories
        }

    def order(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return [queries, entries] int32: the position of each of `call`'s entries in the concatenated histories."""
        return tf.argsort(self._ids(inputs), axis=1, stable=True)

    def call(self, inputs: Mapping[str, tf.Tensor]) -> Repeats:
        """Map model inputs of queries, including the fingerprints of their histories, to the items of those histories.

        The entries are sorted by id, so that equal items are adjacent: comparing all pairs would cost as much as the rest of a
        training step.
        """
        order = self.order(inputs)
        ids = tf.gather(self._ids(inputs), order, batch_dims=1)
        is_item = ids != NO_ITEM
        is_first = is_item & tf.concat([tf.ones_like(is_item[:, :1]), ids[:, 1:] != ids[:, :-1]], axis=1)
        # Of all rows, an item of a row after the other; an entry without an item is counted with one, and adds nothing to it.
        items = tf.reshape(tf.cumsum(tf.reshape(tf.cast(is_first, tf.int32), [-1])) - 1, tf.shape(ids))
        total, start = tf.zeros_like(ids, tf.float32), 0
        for name in self.histories:
            learned, has_item = self.learned[name], inputs[name + FINGERPRINT_SUFFIX] != NO_ITEM
            end = start + has_item.shape[1]
            is_own = is_item if len(self.histories) == 1 else is_item & (order >= start) & (order < end)
            # Missing entries come after the items, so the newest is the last existing one. There is a power for each possible
            # position.
            behind = tf.reduce_sum(tf.cast(has_item, tf.int32), axis=1, keepdims=True) + start - 1 - order
            powers = tf.range(1.0, has_item.shape[1] + 1.0) ** -learned["decay"]
            of_place = tf.gather(powers, tf.where(is_own, behind, 0))
            summed = tf.math.unsorted_segment_sum(tf.where(is_own, of_place, 0.0), items, tf.size(items))
            activation = tf.where(is_first, tf.gather(summed, tf.maximum(items, 0)), 0.0)
            is_in = activation > 0.0
            logarithm = tf.math.log(tf.where(is_in, activation, 1.0))
            total += tf.where(is_in, learned["level"] + learned["slope"] * logarithm, 0.0)
            start = end
        # The bound lets gradients through: a bonus at the bound can rise again.
        bounded = total + tf.stop_gradient(tf.maximum(total, LOWEST) - total)
        return Repeats(tf.where(is_first, ids, NO_ITEM), tf.where(is_first, bounded, 0.0))

    def _ids(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.concat([inputs[name + FINGERPRINT_SUFFIX] for name in self.histories], axis=1)
