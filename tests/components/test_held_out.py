"""By what models of a day are compared: the places of held-out items in the whole catalogue, what histories add among them."""

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.held_out import HeldOut
from components.trainer.model import TwoTowerModel
from components.trainer.repeats import Repeats
from schemas.features import CANDIDATE_ID


class Angles(TwoTowerModel):
    """Users and items by number: vectors of four right angles."""

    def __init__(self, bonus: float | None) -> None:  # no towers, no loss
        self.repeat_bonus = bonus and (lambda inputs: Repeats(inputs["past"], tf.fill(inputs["past"].shape, bonus)))

    def query_tower(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.gather(tf.constant([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), inputs["user"])

    def item_tower(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return self.query_tower({"user": inputs["item"]})


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
