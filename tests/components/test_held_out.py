"""By what models of a day are compared: the places of held-out items in the whole catalogue, what histories add among them."""

from collections.abc import Mapping

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from components.trainer.held_out import HeldOut
from components.trainer.model import TwoTowerModel
from components.trainer.repeats import RepeatBonus, Repeats
from components.trainer.towers import Tower
from schemas.features import CANDIDATE_ID


class OfAngles(Tower):
    """Users or items by number: vectors of four right angles."""

    def __init__(self, feature: str) -> None:
        super().__init__({}, {}, (2,), 0, f"{feature}_tower")
        self._feature = feature

    def call(self, inputs: Mapping[str, tf.Tensor], noise: tf.Tensor | None = None) -> tf.Tensor:
        return tf.gather(tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), inputs[self._feature])


class Same(RepeatBonus):
    """The same bonus for each item of a history."""

    def __init__(self, bonus: float) -> None:
        super().__init__(["past"])
        self._bonus = bonus

    def call(self, inputs: Mapping[str, tf.Tensor]) -> Repeats:
        return Repeats(inputs["past"], tf.fill(inputs["past"].shape, self._bonus))


class Angles(TwoTowerModel):
    def __init__(self, bonus: float | None) -> None:
        tf_keras.Model.__init__(self)  # no loss
        self.query_tower, self.item_tower = OfAngles("user"), OfAngles("item")
        self.repeat_bonus = None if bonus is None else Same(bonus)


def of_first_user(past: list[list[int]]) -> HeldOut:
    """The first user with each of the four items, numbered 13 to 10 in the catalogue's order."""
    queries = {"user": tf.zeros(4, tf.int64), "past": tf.constant(past, tf.int64)}
    items = {"item": tf.range(4, dtype=tf.int64), CANDIDATE_ID: tf.constant([13, 12, 11, 10], tf.int64)}
    return HeldOut(queries, items, np.arange(4), np.arange(4), np.ones(4, bool))


def test_hits_are_by_places_in_the_whole_catalogue_and_equal_scores_share_theirs() -> None:
    held_out = of_first_user([[-1]] * 4)
    # Scores 1, 0, -1, 0: the two zeros share the second and the third place.
    found = [held_out.hits(Angles(None), k).tolist() for k in (1, 2, 3, 4)]
    assert found == [[1, 0, 0, 0], [1, 0.5, 0, 0.5], [1, 1, 0, 1], [1, 1, 1, 1]]


def test_hits_include_repeat_bonuses() -> None:
    # The second query has its item, 12, in its history, the third the item 10, the others nothing.
    held_out = of_first_user([[-1, -1], [-1, 12], [10, -1], [-1, -1]])
    assert held_out.hits(Angles(0.5), 2).tolist() == [1, 1, 0, 0.5]
    assert held_out.hits(Angles(1.5), 1).tolist() == [1, 1, 0, 0]
    assert held_out.hits(Angles(None), 2).tolist() == [1, 0.5, 0, pytest.approx(0.5)]
