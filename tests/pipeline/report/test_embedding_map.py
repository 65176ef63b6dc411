"""The map keeps neighbours together, and colours by a declared feature."""

from pathlib import Path

import numpy as np

from pipeline.report.embedding_map import group_feature, grouped, lay_out
from schemas import features

DATASETS = Path(features.__file__).parents[1]


def test_neighbours_stay_neighbours() -> None:
    # Three bundles of twenty around three of eight axes: on the map, who is nearest is of the same bundle.
    chance = np.random.default_rng(0)
    bundle = np.repeat(np.arange(3), 20)
    points = np.eye(8, dtype=np.float32)[bundle] + chance.normal(0, 0.05, (60, 8)).astype(np.float32)
    found = lay_out(points / np.linalg.norm(points, axis=1, keepdims=True))
    assert found.min() == 2.0 and found.max() == 98.0
    apart = np.linalg.norm(found[:, None] - found[None], axis=2) + np.eye(60) * 1e9
    assert (bundle[apart.argmin(axis=1)] == bundle).all()


def test_items_that_are_all_alike_have_a_place_too() -> None:
    assert np.isfinite(lay_out(np.full((12, 4), 0.5, np.float32))).all()


def test_the_most_frequent_values_are_groups_of_their_own() -> None:
    values = ["a", "b", "b", "", "c", "c", "c", "d", "e", "f", "g", "h"]
    numbers, names = grouped(values)
    # c, b, then each once in the order of its coming: a, d, e, f, g are the seven; h is left.
    assert names == ("c", "b", "a", "d", "e", "f", "g", "others", "none")
    assert numbers == [2, 1, 1, 8, 0, 0, 0, 3, 4, 5, 6, 7]
    assert grouped(["a", "a"]) == ([0, 0], ("a",))


def test_the_feature_that_colours_is_not_the_item_itself() -> None:
    assert group_feature(features.load(DATASETS / "movielens")) == "genres"
