import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.cooccurrence import FADES, NEWEST, ONE, Neighbours
from tests.components.test_ranking import excluded_of

# Item 0 leads to 1 three times in four and to 2 once, item 3 to 2 always. Popularity: 2, 3, 4, 1, 4.
COUNTS = np.zeros((5, 5), np.int64)
COUNTS[0, [1, 2]] = 3, 1
COUNTS[3, 2] = 2
POPULARITY = np.array([2, 3, 4, 1, 4])


def neighbours_of(counts: NDArray[np.int64], popularity: NDArray[np.int64], most: int = 5) -> Neighbours:
    """[items, items] counts, how often the column's item was taken with the row's in the history."""
    return Neighbours.build(sparse.csr_array(counts), counts.sum(axis=1), popularity, most)


def test_weights_are_cosines() -> None:
    weights = neighbours_of(COUNTS, POPULARITY).weights.toarray() / ONE
    # 3 of item 0's 4, and item 1 was taken 3 times: 3 / sqrt(4 * 3); 1 / sqrt(4 * 4); 2 / sqrt(2 * 4).
    assert weights[0].tolist() == pytest.approx([0, 3 / 12**0.5, 1 / 4, 0, 0], abs=1e-6)
    assert weights[3].tolist() == pytest.approx([0, 0, 2 / 8**0.5, 0, 0], abs=1e-6)
    assert weights[[1, 2, 4]].sum() == 0


def test_newer_items_of_a_history_weigh_more() -> None:
    neighbours = neighbours_of(COUNTS, POPULARITY)
    scores = neighbours.scores(excluded_of([[3, 0], [0, 3], [0, 0], []])).toarray()
    one, two = neighbours.weights.toarray()[0, [1, 2]]
    three = neighbours.weights.toarray()[3, 2]
    older = round(NEWEST * FADES)
    assert scores[:, [1, 2]].tolist() == [
        [NEWEST * one, NEWEST * two + older * three],
        [older * one, older * two + NEWEST * three],
        [(NEWEST + older) * one, (NEWEST + older) * two],
        [0, 0],
    ]
    assert older < NEWEST


def test_the_targets_with_the_greatest_counts_are_kept() -> None:
    counts = np.array([[1, 5, 2, 2, 2], [3, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    kept = neighbours_of(np.vstack([counts, np.zeros((2, 5), np.int64)]), np.ones(5, np.int64), most=3).weights
    # Of those level with the last the first: of the counts 2, 2, 2 two; of five of 1 three.
    assert [np.flatnonzero(row).tolist() for row in kept.toarray()[:3]] == [[1, 2, 3], [0], [0, 1, 2]]
    # A share is of all targets, kept or not.
    assert kept.toarray()[0, 1] == round(ONE * 5 / 12**0.5)
