import numpy as np
import pyarrow as pa

from components.evaluator import slices


def test_head_torso_and_tail_by_share_of_interactions() -> None:
    # Of 20 interactions the head has the first half: 8 before which there are 0, and 4 before which there are 8. The torso goes on
    # up to 18: before the items of 3 and 3 there are 12 and 15. Before the next there are 18; what has none is in the tail too.
    counts = np.array([1, 8, 3, 0, 4, 3, 1])
    expected = ["tail", "head", "torso", "tail", "head", "torso", "tail"]
    assert slices.popularity_parts(counts).tolist() == expected
    assert slices.popularity_parts(np.array([2, 2])).tolist() == ["head", "torso"]  # half is before it
    assert slices.popularity_parts(np.zeros(2, np.int64)).tolist() == ["tail", "tail"]


def test_lengths_of_history() -> None:
    lengths = np.array([0, 1, 4, 5, 19, 20, 300])
    assert slices.history_lengths(lengths).tolist() == ["0", "1-4", "1-4", "5-19", "5-19", "20+", "20+"]


def test_numbers_between_edges() -> None:
    numbers = pa.array([[24.9], [25.0], [], [49.0], [50.5]], pa.list_(pa.float32()))
    names = slices.of_numbers(numbers, [25, 50]).to_pylist()
    assert names == [[b"<25"], [b"25-50"], [b"(none)"], [b"25-50"], [b">=50"]]


def test_ids_that_are_kept_and_others() -> None:
    ids = pa.array([[b"a"], [b"b", b"c", b"d"], [], [b"d"]], pa.list_(pa.binary()))
    names = slices.of_ids(ids, [b"a", b"b"]).to_pylist()
    # Two that are not kept are one slice: an interaction counts once in each.
    assert names == [[b"a"], [b"(other)", b"b"], [b"(none)"], [b"(other)"]]
