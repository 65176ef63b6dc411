from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_ranking import by_definition, excluded_of, same

from components.evaluator.cooccurrence import ONE, Neighbours, rank_by_cooccurrence, top_by_cooccurrence
from components.evaluator.ranking import Ranks


def neighbours_of(counts: NDArray[np.int64]) -> Neighbours:
    """[items, items] counts, how often the column's item was chosen with the row's in the history."""
    source, target = np.nonzero(counts)
    return Neighbours.build(source, target, counts[source, target], counts.sum(axis=1)[source], len(counts))


# Item 0 leads to 1 three times in four and to 2 once, item 3 to 2 always. Popularity: 2, 3, 4, 1, 4.
COUNTS = np.zeros((5, 5), np.int64)
COUNTS[0, [1, 2]] = 3, 1
COUNTS[3, 2] = 2
POPULARITY = np.array([2, 3, 4, 1, 4])


def test_a_case_worked_out_by_hand() -> None:
    neighbours = neighbours_of(COUNTS)
    # History [0, 3]: item 2 has 1/4 + 1, item 1 has 3/4, the others nothing: 2, 1, then 4, 0, 3 by popularity. No history: 2 and 4
    # are equal, then 1, 0, 3.
    histories = excluded_of([[0, 3], [0, 3], [0, 3], []])
    found = rank_by_cooccurrence(neighbours.scores(histories), POPULARITY, np.array([2, 1, 0, 4]))
    same(found, Ranks(np.array([0, 1, 3, 0]), np.array([0, 0, 0, 1])))
    assert neighbours.scores(excluded_of([[0, 0]])).toarray().tolist() == [[0, ONE * 3 // 2, ONE // 2, 0, 0]]
    scores = neighbours.scores(excluded_of([[0, 3], []]))
    top = top_by_cooccurrence(scores, POPULARITY, 4)
    assert top.tolist() == [[2, 1, 4, 0], [2, 4, 1, 0]]
    seen = excluded_of([[2, 4], [1, 2, 0, 4]])
    assert top_by_cooccurrence(scores, POPULARITY, 4, seen).tolist() == [[1, 0, 3, -1], [3, -1, -1, -1]]


@st.composite
def cases(draw: st.DrawFn) -> Any:
    items, queries = draw(st.integers(1, 15)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = random.integers(0, 3, (items, items)) * (random.random((items, items)) < 0.3)
    histories, seen = (
        [random.integers(0, items, random.integers(0, 4)).tolist() for _ in range(queries)] for _ in range(2)
    )
    return counts, random.integers(0, 3, items), random.integers(0, items, queries), histories, seen


@given(cases(), st.booleans(), st.integers(1, 20))
def test_ranks_and_tops_are_those_by_definition(case: Any, excludes: bool, k: int) -> None:
    counts, popularity, true_rows, histories, seen = case
    seen = seen if excludes else [[] for _ in seen]
    excluded = excluded_of(seen) if excludes else None
    neighbours = neighbours_of(counts)
    weights = neighbours.weights.toarray()
    scores = np.array([sum((weights[row] for row in history), np.zeros(len(counts))) for history in histories])
    # One number that has the order of both: no popularity is above 2.
    together = scores * 10 + popularity
    led_to = neighbours.scores(excluded_of(histories))
    found = rank_by_cooccurrence(led_to, popularity, true_rows, excluded)
    same(found, by_definition(together, true_rows, seen))
    top = top_by_cooccurrence(led_to, popularity, k, excluded)
    for query, rows in enumerate(top):
        there = [row for row in range(len(counts)) if row not in seen[query]]
        expected = sorted(there, key=lambda row: (-together[query, row], row))[:k]
        assert rows.tolist() == expected + [-1] * (k - len(expected))


def test_weights_are_shares_of_the_source() -> None:
    weights = neighbours_of(COUNTS).weights.toarray()
    assert weights[0].tolist() == [0, ONE * 3 // 4, ONE // 4, 0, 0]
    assert weights[3, 2] == ONE and weights.sum() == pytest.approx(2 * ONE)
