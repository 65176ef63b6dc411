"""What is added up for a metric, and in how many pieces does not matter."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from tensorflow_model_analysis.metrics import metric_types

from components.evaluator.metrics import SUMS_KEY, Add, Cell, _Interval
from components.evaluator.names import AS_NEW, BASELINE, CANDIDATE, POPULARITY, QUERIES, STRONGEST, Statistics
from components.evaluator.sums import Measured, Sums

STATISTICS = Statistics(recall_at=(1,), retrieved_at=2)
ITEMS = 20
RECALL = "recall_at_1"


def interaction(group: int, retrieved: Sequence[int], **hits: float) -> Cell:
    """A cell of one in which each scorer has the item first or not; a query of its own."""
    values = {}
    for scorer, hit in hits.items():
        values[scorer] = np.zeros(len(STATISTICS.columns))
        for name, value in {"interactions": 1.0, QUERIES: 1.0, RECALL: hit}.items():
            values[scorer][STATISTICS.columns.index(name)] = value
    return Cell(values, {scorer: np.array(retrieved, np.int64) for scorer in hits}, group, ITEMS)


# Of 20 items, in bytes of 8, the rows 1, 3, 7, 9 and 19 are retrieved.
INTERACTIONS = [
    interaction(0, [1, 9], candidate=1.0, baseline=0.0, popularity=0.0),
    interaction(0, [19, 3], candidate=1.0, baseline=1.0, popularity=0.0),
    interaction(5, [9, 7], candidate=0.0, baseline=1.0, popularity=0.0),
    interaction(9, [], candidate=1.0, baseline=0.0, popularity=1.0),
]


def add(interactions: Sequence[Cell]) -> Sums:
    combine = Add()
    sums = combine.create_accumulator()
    for each in interactions:
        sums = combine.add_input(sums, each)
    return sums


@pytest.mark.parametrize("pieces", [[4], [1, 3], [2, 0, 2], [1, 1, 1, 1]])
def test_sums_are_the_same_in_any_pieces(pieces: list[int]) -> None:
    ends = np.cumsum([0, *pieces])
    parts = [add(INTERACTIONS[first:after]) for first, after in pairwise(ends)]
    sums = Add().extract_output(Add().merge_accumulators(parts))[SUMS_KEY]
    assert sums.coverage(CANDIDATE) == 5 / 20
    recall = STATISTICS.columns.index(RECALL)
    assert sums.values[CANDIDATE][[0, 5, 9], recall].tolist() == [2.0, 0.0, 1.0]
    assert sums.values[BASELINE][[0, 5, 9], recall].tolist() == [1.0, 1.0, 0.0]
    assert sums.values[CANDIDATE].sum() == 4 + 4 + 3
    assert Measured(STATISTICS, QUERIES, CANDIDATE).value(sums) == 4.0


def test_a_lead_is_over_the_same_interactions() -> None:
    sums = add(INTERACTIONS)
    assert Measured(STATISTICS, RECALL, CANDIDATE).value(sums) == 3 / 4
    assert Measured(STATISTICS, RECALL, CANDIDATE, over=POPULARITY).value(sums) == pytest.approx(3 / 4 - 1 / 4)
    assert Measured(STATISTICS, RECALL, CANDIDATE, over=BASELINE).value(sums) == pytest.approx(3 / 4 - 2 / 4)


def test_the_interval_of_a_change_is_that_of_the_differences() -> None:
    # By group: recall 2/2, 0/1, 1/1; the baseline's 1/2, 1/1, 0/1. Differences 1 of 2, -1 of 1, 1 of 1: their mean is 1/4.
    # Without a group each: 0/2, 2/3, 0/3; the jackknife's variance is 2/3 times the squares about their mean, 2/9.
    key = metric_types.MetricKey(name=RECALL, model_name=CANDIDATE)
    found = _Interval(key, Measured(STATISTICS, RECALL, CANDIDATE))(
        {SUMS_KEY: add(INTERACTIONS), key: 0.75, key.make_diff_key(): 0.25}
    )
    change = found[key.make_diff_key()]
    assert change.sample_mean == change.unsampled_value == pytest.approx(1 / 4)
    assert change.sample_standard_deviation == pytest.approx((2 / 3 * ((2 / 9) ** 2 * 2 + (4 / 9) ** 2)) ** 0.5)
    assert change.sample_degrees_of_freedom == 2
    assert found[key].sample_mean == 3 / 4


def test_only_means_have_intervals() -> None:
    for statistic in (QUERIES, STATISTICS.coverage):
        key = metric_types.MetricKey(name=statistic)
        assert _Interval(key, Measured(STATISTICS, statistic, CANDIDATE))({SUMS_KEY: add(INTERACTIONS)}) == {}


def test_the_strongest_is_the_one_with_the_greatest_value() -> None:
    sums = add(INTERACTIONS)
    # recall@1: the model 3/4, the baselines 2/4 and 1/4.
    lead = Measured(STATISTICS, RECALL, CANDIDATE, STRONGEST, beat=(POPULARITY, BASELINE))
    assert lead.value(sums) == pytest.approx(3 / 4 - 2 / 4)
    assert lead._replace(beat=(POPULARITY,)).value(sums) == pytest.approx(3 / 4 - 1 / 4)


def test_a_scorer_that_ranked_nothing_has_no_value() -> None:
    sums = add(INTERACTIONS)
    assert np.isnan(Measured(STATISTICS, RECALL, AS_NEW).value(sums))
    assert Measured(STATISTICS, "interactions", AS_NEW).value(sums) == 0.0
