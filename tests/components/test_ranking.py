import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluator import ranking


def test_ranks_of_a_case_worked_out_by_hand() -> None:
    items = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    queries = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    # Scores of either query: 1, 0, .6. Item 2 is second (one above), item 1 third (two above).
    ranks = ranking.rank_by_embedding(queries, items, np.array([2, 1]))
    assert ranks.above.tolist() == [1, 2]
    assert ranks.tied.tolist() == [0, 0]


def test_a_model_that_scores_all_alike_hits_by_chance() -> None:
    items = np.tile(np.array([[1.0, 0.0]], np.float32), (20, 1))
    ranks = ranking.rank_by_embedding(items[:1], items, np.array([3]))
    assert ranking.hit_probability(ranks.above[0], ranks.tied[0], 5) == pytest.approx(5 / 20)


@pytest.mark.parametrize(
    ("above", "tied", "k", "expected"), [(0, 0, 1, 1.0), (9, 0, 10, 1.0), (10, 0, 10, 0.0), (8, 3, 10, 0.5)]
)
def test_hit_probability(above: int, tied: int, k: int, expected: float) -> None:
    # 8 above and 4 items (itself and 3) on places 9 to 12: two of the four places are among the first ten.
    assert ranking.hit_probability(above, tied, k) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5))
def test_blocks_do_not_change_ranks(seed: int, item_count: int, block: int) -> None:
    random = np.random.default_rng(seed)
    items = random.integers(-2, 3, (item_count, 3)).astype(np.float32)
    queries = random.integers(-2, 3, (7, 3)).astype(np.float32)
    true_rows = random.integers(0, item_count, 7)
    scores = queries @ items.T
    true = scores[np.arange(7), true_rows][:, np.newaxis]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_ITEMS", block)
        ranks = ranking.rank_by_embedding(queries, items, true_rows)
    assert ranks.above.tolist() == (scores > true).sum(axis=1).tolist()
    assert ranks.tied.tolist() == ((scores == true).sum(axis=1) - 1).tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.data())
def test_popularity_ranks_by_count(counts: list[int], data: st.DataObject) -> None:
    true_row = data.draw(st.integers(0, len(counts) - 1))
    ranks = ranking.rank_by_score(np.array(counts, np.float64), np.array([true_row]))
    assert ranks.above[0] == sum(count > counts[true_row] for count in counts)
    assert ranks.tied[0] == counts.count(counts[true_row]) - 1
