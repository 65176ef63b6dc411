from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.evaluator import block_search, ranking
from components.evaluator.query_items import Bonuses, Excluded
from components.evaluator.ranking import Ranks
from components.indexer import on_disk


def excluded_of(lists: list[list[int]]) -> Excluded:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
    return Excluded(offsets, np.array([row for each in lists for row in each], np.int64))


def by_definition(scores: NDArray[Any], true_rows: NDArray[np.int64], lists: list[list[int]]) -> Ranks:
    """[queries, items] scores; every other item that is not excluded is compared with the true one."""
    above, tied = [], []
    for query, true in enumerate(true_rows):
        others = [row for row in range(scores.shape[1]) if row != true and row not in lists[query]]
        own, theirs = scores[query, true], scores[query, others]
        nowhere = not np.isfinite(own)
        above.append(len(others) if nowhere else int(((theirs > own) | np.isnan(theirs)).sum()))
        tied.append(0 if nowhere else int((theirs == own).sum()))
    return Ranks(np.array(above, np.int64), np.array(tied, np.int64))


def same(found: Ranks, expected: Ranks) -> None:
    assert found.above.tolist() == expected.above.tolist()
    assert found.tied.tolist() == expected.tied.tolist()


def test_ranks_of_a_case_worked_out_by_hand() -> None:
    items = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    queries = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    # Scores of either query: 1, 0, .6. Item 2 is second (one above), item 1 third (two above).
    same(ranking.rank_by_embedding(queries, items, np.array([2, 1])), Ranks(np.array([1, 2]), np.array([0, 0])))
    # The second query has seen item 0, and its own: only item 2 is still above.
    seen = excluded_of([[], [0, 1, 0]])
    same(ranking.rank_by_embedding(queries, items, np.array([2, 1]), seen), Ranks(np.array([1, 1]), np.array([0, 0])))


def test_ranks_with_bonuses_worked_out_by_hand() -> None:
    items = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    queries = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    # Scores 1, 0, .6; the first query adds .5 to item 2, the second 2 to item 1 and takes .5 from item 0, which makes .5, 2, .6.
    bonuses = Bonuses.of_rows(np.array([[2, -1], [1, 0]]), np.array([[0.5, 9.0], [2.0, -0.5]], np.float32))
    assert bonuses.of_items(np.array([[2, 0], [0, -1]])).tolist() == [[0.5, 0.0], [-0.5, 0.0]]
    same(
        ranking.rank_by_embedding(queries, items, np.array([2, 0]), bonuses=bonuses),
        Ranks(np.array([0, 2]), np.array([0, 0])),
    )
    assert ranking.top_rows(queries, items, 2, bonuses=bonuses).tolist() == [[2, 0], [1, 2]]


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], list[list[int]]]:
    """Whole numbers as coordinates, so that products are exact and ties are frequent; duplicates of items; some NaN."""
    items, queries = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vectors = random.integers(-2, 3, (items, 3)).astype(np.float32)
    vectors[random.integers(0, items, items // 3)] = vectors[0]
    if draw(st.booleans()):
        vectors[random.random(items) < 0.1] = np.nan
    lists = [random.integers(0, items, random.integers(0, 6)).tolist() for _ in range(queries)]
    asked = random.integers(-2, 3, (queries, 3)).astype(np.float32)
    return asked, vectors, random.integers(0, items, queries), lists


def bonuses_of(true_rows: NDArray[np.int64], items: int) -> tuple[Bonuses, NDArray[np.float32]]:
    """Whole numbers for some items of each query, its true one among them now and then; and the same as [queries, items]."""
    random = np.random.default_rng(int(true_rows.sum()))
    rows = np.array([random.permutation(items)[: min(4, items)] for _ in true_rows])
    values = random.integers(-2, 3, rows.shape).astype(np.float32)
    rows = np.where(random.random(rows.shape) < 0.2, -1, rows)
    added = np.zeros((len(rows), items), np.float32)
    for query, (of_query, own) in enumerate(zip(rows, values, strict=True)):
        added[query, of_query[of_query >= 0]] = own[of_query >= 0]
    return Bonuses.of_rows(rows, values), added


@given(cases(), st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_ranks_are_those_by_definition(case: Any, block_items: int, block_queries: int, excludes: bool) -> None:
    queries, items, true_rows, lists = case
    lists = lists if excludes else [[] for _ in lists]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_search, "BLOCK_ITEMS", block_items)
        patch.setattr(block_search, "BLOCK_QUERIES", block_queries)
        patch.setattr(block_search, "MOST_IN_A_BYTE", 3)
        left_out = excluded_of(lists) if excludes else None
        found = ranking.rank_by_embedding(queries, items, true_rows, left_out)
        bonuses, added = bonuses_of(true_rows, len(items))
        with_bonuses = ranking.rank_by_embedding(queries, items, true_rows, left_out, bonuses)
    same(found, by_definition(queries @ items.T, true_rows, lists))
    same(with_bonuses, by_definition(queries @ items.T + added, true_rows, lists))


@given(st.integers(1, 90), st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_four_shards_give_the_same_as_one_to_the_last_tie(items: int, queries: int, k: int, seed: int) -> None:
    """Unit vectors of which many are equal, so that products are not exact and ties are frequent; on disk and in memory."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(-(-items // 3), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors[random.integers(0, len(vectors), items)]
    asked = random.normal(size=(queries, 16)).astype(np.float32)
    true_rows = random.integers(0, items, queries)
    excluded = excluded_of([random.integers(0, items, random.integers(0, 6)).tolist() for _ in range(queries)])
    bonuses, _ = bonuses_of(true_rows, items)
    passing = np.flatnonzero(random.random(items) < 0.5)

    def found(vectors: NDArray[np.float32]) -> list[Any]:
        ranks, rows = ranking.rank_and_retrieve(asked, vectors, true_rows, k, excluded, bonuses)
        first = ranking.top_rows(asked, vectors, k, excluded, bonuses)
        return [each.tolist() for each in (*ranks, rows, first)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_search, "BLOCK_ITEMS", max(1, -(-items // 4)))
        patch.setattr(block_search, "BLOCK_QUERIES", 5)
        whole, among = found(vectors), ranking.top_among(asked, vectors, passing, k)
        patch.setattr(block_search, "SHARD_BYTES", 1)
        assert found(vectors) == found(on_disk.copy(vectors)) == whole
        of_shards = ranking.top_among(asked, vectors, passing, k)
    scores = np.einsum("qw,qkw->qk", asked, vectors[among])
    np.testing.assert_allclose(np.einsum("qw,qkw->qk", asked, vectors[of_shards]), scores, atol=1e-6)
    assert of_shards.shape == among.shape and set(of_shards.ravel()) <= set(passing)
    assert all(len(set(rows)) == len(rows) for rows in of_shards.tolist())


def test_more_items_than_a_byte_counts() -> None:
    """Regression guard: flags are added up in bytes, 255 at a time."""
    items = np.concatenate([np.full((1500, 1), 2.0), np.full((1200, 1), 1.0)]).astype(np.float32)
    found = ranking.rank_by_embedding(np.ones((1, 1), np.float32), items, np.array([2000]))
    same(found, Ranks(np.array([1500]), np.array([1199])))


def test_the_same_item_in_two_blocks_does_not_beat_itself() -> None:
    random = np.random.default_rng(0)
    unit = random.normal(size=(2000, 64)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    items = np.concatenate([unit, unit, unit[:300]])
    true_rows = random.integers(0, len(items), 50)
    found = ranking.rank_by_embedding(unit[:50], items, true_rows)
    scores = unit[:50].astype(np.float64) @ items.astype(np.float64).T
    lead = scores - np.take_along_axis(scores, true_rows[:, np.newaxis], axis=1)
    same(found, Ranks((lead > block_search.TIE).sum(axis=1), (np.abs(lead) <= block_search.TIE).sum(axis=1) - 1))
    assert found.tied.min() >= 1


def test_a_model_that_scores_all_alike_has_every_item_tied() -> None:
    items = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    same(ranking.rank_by_embedding(items[:1], items, np.array([3])), Ranks(np.array([0]), np.array([19])))


@pytest.mark.parametrize("width", [1, 3])
def test_misuse_is_named(width: int) -> None:
    queries = np.ones((2, width), np.float32)
    with pytest.raises(ValueError, match="of one width"):
        ranking.rank_by_embedding(queries, np.ones((4, 2), np.float32), np.array([0, 1]))
    with pytest.raises(ValueError, match="rows of a catalogue of 4 items, received 0 to 4"):
        ranking.rank_by_embedding(queries, np.ones((4, width), np.float32), np.array([0, 4]))
    with pytest.raises(ValueError, match="expected 3 offsets, received 2"):
        ranking.rank_by_score(np.ones(4), np.array([0, 1]), excluded_of([[1]]))


@given(cases(), st.lists(st.integers(0, 4), min_size=40, max_size=40), st.booleans())
def test_ranks_by_a_score_are_those_by_definition(case: Any, counts: list[int], excludes: bool) -> None:
    _, items, true_rows, lists = case
    lists = lists if excludes else [[] for _ in lists]
    scores = np.array(counts[: len(items)], np.float64)
    found = ranking.rank_by_score(scores, true_rows, excluded_of(lists) if excludes else None)
    same(found, by_definition(np.tile(scores, (len(true_rows), 1)), true_rows, lists))


@given(cases(), st.integers(1, 50))
def test_the_top_rows_are_those_of_the_highest_scores(case: Any, k: int) -> None:
    queries, items, true_rows, lists = case
    items = np.nan_to_num(items)
    bonuses, added = bonuses_of(true_rows, len(items))
    nothing: list[list[int]] = [[] for _ in lists]
    for seen, has_bonuses in ((lists, False), (nothing, False), (lists, True)):
        scores = queries @ items.T + has_bonuses * added
        found = ranking.top_rows(queries, items, k, excluded_of(seen), bonuses if has_bonuses else None)
        assert found.shape == (len(queries), k)
        for query, rows in enumerate(found):
            there = [row for row in range(len(items)) if row not in seen[query]]
            best = sorted((scores[query, row] for row in there), reverse=True)[:k]
            kept = rows[rows >= 0]
            assert scores[query, kept].tolist() == best  # whichever of equal ones, in order
            assert len(set(kept.tolist())) == len(kept) and set(kept.tolist()) <= set(there)
            assert (rows[len(kept) :] == -1).all()
