from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from components.evaluator.ranking import Ranks
from components.evaluator.ranking_entries import rank_by_entries, top_by_entries, top_by_popularity
from tests.components.test_ranking import by_definition, excluded_of, same

POPULARITY = np.array([2, 3, 4, 1, 4])


def test_a_case_worked_out_by_hand() -> None:
    # Item 2 scores 5, item 1 scores 3, the others nothing: 2, 1, then 4, 0, 3 by popularity. Without scores 2 and 4 are level, then
    # 1, 0, 3.
    scores = sparse.csr_array([[0, 3, 5, 0, 0]] * 3 + [[0] * 5])
    found = rank_by_entries(scores, POPULARITY, np.array([2, 1, 0, 4]))
    same(found, Ranks(np.array([0, 1, 3, 0]), np.array([0, 0, 0, 1])))
    scores = sparse.csr_array([[0, 3, 5, 0, 0], [0] * 5])
    assert top_by_entries(scores, POPULARITY, 4).tolist() == [[2, 1, 4, 0], [2, 4, 1, 0]]
    seen = excluded_of([[2, 4], [1, 2, 0, 4]])
    assert top_by_entries(scores, POPULARITY, 4, seen).tolist() == [[1, 0, 3, -1], [3, -1, -1, -1]]
    assert top_by_popularity(2, POPULARITY, 3).tolist() == [[2, 4, 1], [2, 4, 1]]
    assert top_by_popularity(2, POPULARITY, 3, seen).tolist() == [[1, 0, 3], [3, -1, -1]]


@st.composite
def cases(draw: st.DrawFn) -> Any:
    items, queries = draw(st.integers(1, 15)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.integers(0, 4, (queries, items)) * (random.random((queries, items)) < 0.4)
    seen = [random.integers(0, items, random.integers(0, 4)).tolist() for _ in range(queries)]
    order = random.permutation(items)
    return scores, random.integers(0, 3, items), random.integers(0, items, queries), seen, order


@given(cases(), st.booleans(), st.integers(1, 20))
def test_ranks_and_tops_are_those_by_definition(case: Any, excludes: bool, k: int) -> None:
    scores, popularity, true_rows, seen, order = case
    seen = seen if excludes else [[] for _ in seen]
    excluded = excluded_of(seen) if excludes else None
    # The entries of a query in any order, with zeros among them.
    entries = sparse.csr_array(scores)
    entries.data[:1] = 0
    scores = entries.toarray()
    for start, end in zip(entries.indptr, entries.indptr[1:], strict=False):
        shuffled = start + np.argsort(order[: end - start])
        entries.data[start:end], entries.indices[start:end] = entries.data[shuffled], entries.indices[shuffled]
    together = scores * 10 + popularity  # no popularity is above 2
    same(rank_by_entries(entries, popularity, true_rows, excluded), by_definition(together, true_rows, seen))
    for query, rows in enumerate(top_by_entries(entries, popularity, k, excluded)):
        there = [row for row in range(len(popularity)) if row not in seen[query]]
        # Of those level in both, by their place among the popular.
        expected = sorted(there, key=lambda row: (-together[query, row], row))[:k]
        assert rows.tolist() == expected + [-1] * (k - len(expected))
