"""The metrics of a ranking from their sums, against what they are by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluator.names import INTERACTIONS, QUERIES, SEARCHED_QUERIES, Statistics, denominator
from components.evaluator.ranking import Ranks
from components.evaluator.statistics import Mean, added

STATISTICS = Statistics(recall_at=(2, 5), retrieved_at=3)


def one(above: int, tied: int, true_items: int = 1, repeats: int = 1) -> dict[str, float]:
    ranks = Ranks(np.array([above]), np.array([tied]))
    found = added(STATISTICS, ranks, np.array([true_items]), np.array([repeats]), np.array([[0.25, 4.0, 1.0, 0.5]]))
    return dict(zip(STATISTICS.columns, found[0].tolist(), strict=True))


def test_metric_names_include_the_candidate_set() -> None:
    assert STATISTICS.candidates == "catalogue"
    assert Statistics((10,), 10, exclude_history=True).candidates == "unseen"
    assert Statistics((10,), 10, exclude_history="all").candidates == "untaken"
    assert STATISTICS.names == [
        "recall_at_2", "recall_at_5", "mrr", "query_recall_at_2", "query_recall_at_5", "ndcg_at_2", "ndcg_at_5",
        "popularity_at_3", "novelty_at_3", "index_recall_at_3", "coverage_at_3",
    ]  # fmt: skip
    assert [denominator(name) for name in ("recall_at_2", "mrr", "query_recall_at_2", "ndcg_at_5", "index_recall_at_3")] == [
        INTERACTIONS, INTERACTIONS, QUERIES, QUERIES, SEARCHED_QUERIES,
    ]  # fmt: skip


def test_an_interaction_worked_out_by_hand() -> None:
    # One item of a query with two, in third place: not among the first 2, among the first 5; half of its query.
    # Gain 1 / log2(4) = 1/2; the best order of two items has 1 + 1 / log2(3) = 1.63093 among the first 5.
    values = one(above=2, tied=0, true_items=2)
    assert (values["interactions"], values["queries"]) == (1.0, 0.5)
    assert (values["recall_at_2"], values["recall_at_5"]) == (0.0, 1.0)
    assert (values["query_recall_at_2"], values["query_recall_at_5"]) == (0.0, 0.5)
    assert values["ndcg_at_5"] == pytest.approx(0.5 / 1.63093, rel=1e-5)
    assert values["mrr"] == pytest.approx(1 / 3)
    assert (values["popularity_at_3"], values["novelty_at_3"], values["index_recall_at_3"]) == (0.125, 2.0, 0.25)
    assert values["searched_queries"] == 0.5


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=6))
def test_sums_over_interactions_give_the_means_over_queries(queries: list[list[int]]) -> None:
    """Each query has a set of places (distinct ones are its true items, repeated ones interactions with the same item)."""
    total = np.zeros(len(STATISTICS.columns))
    recalls: dict[int, list[float]] = {2: [], 5: []}
    ndcgs: dict[int, list[float]] = {2: [], 5: []}
    for places in queries:
        different = set(places)
        for place in places:
            total += list(one(place, 0, len(different), places.count(place)).values())
        for k in (2, 5):
            recalls[k].append(sum(place < k for place in different) / len(different))
            gained = sum(1 / np.log2(place + 2) for place in different if place < k)
            ndcgs[k].append(gained / sum(1 / np.log2(n + 2) for n in range(min(k, len(different)))))
    sums = dict(zip(STATISTICS.columns, total, strict=True))
    assert sums["queries"] == pytest.approx(len(queries))
    assert sums["interactions"] == sum(map(len, queries))
    for k in (2, 5):
        assert sums[f"query_recall_at_{k}"] / sums["queries"] == pytest.approx(np.mean(recalls[k]))
        assert sums[f"ndcg_at_{k}"] / sums["queries"] == pytest.approx(np.mean(ndcgs[k]))
        flat = [place < k for places in queries for place in places]
        assert sums[f"recall_at_{k}"] / sums["interactions"] == pytest.approx(np.mean(flat))


def test_the_error_of_a_mean_leaves_groups_out() -> None:
    # Groups of 1, 1 and 2 with sums 1, 0 and 1: the mean is 2 / 4. Without one group each: 1/3, 2/3, 1/2; their mean is 1/2.
    # The variance is (3 - 1) / 3 * (1/36 + 1/36 + 0) = 1/27. The empty group does not count.
    mean = Mean.of(np.array([1.0, 0.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 2.0]))
    assert (mean.value, mean.groups) == (0.5, 3)
    assert mean.error == pytest.approx((1 / 27) ** 0.5)
    assert Mean.of(np.array([3.0, 0.0]), np.array([4.0, 0.0])) == Mean(0.75, None, 1)


def test_the_error_of_a_mean_of_independent_values_is_the_textbooks() -> None:
    # One value a group: the jackknife's error is the standard deviation over the root of their number, exactly.
    values = np.random.default_rng(0).normal(size=32)
    mean = Mean.of(values, np.ones(32))
    assert mean.error == pytest.approx(values.std(ddof=1) / 32**0.5)


def test_the_interval_of_a_mean_is_students() -> None:
    # Two values, 0 and 1: the error is .5, and the 97.5 % quantile of one degree of freedom 12.706.
    value, lower, upper = Mean.of(np.array([0.0, 1.0]), np.ones(2)).interval()
    assert value == 0.5
    assert (lower, upper) == pytest.approx((0.5 - 6.353, 0.5 + 6.353), abs=1e-3)
    assert Mean.of(np.array([3.0]), np.array([4.0])).interval() == [0.75, None, None]
    nothing = Mean.of(np.zeros(3), np.zeros(3))
    assert np.isnan(nothing.value) and nothing.groups == 0
