"""The benchmark of warm start: what it says of ranks that are known, and that the truth finds its interactions again."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import warm_start
from benchmarks.days import Interactions
from benchmarks.logs import FIRST_DAY, Log, World
from benchmarks.warm_start import FROZEN, SHOWN, TRUTH, WARM, by_truth, figures, headline, together, verdict
from components.evaluator.ranking import Ranks


def asked(users: list[bytes]) -> Interactions:
    number = len(users)
    return Interactions(
        [b""] * number,
        np.array([*users, None], object)[:-1],
        np.array([b"i"] * number, object),
        np.arange(number),
        pa.array([[]] * number, pa.list_(pa.binary())),
    )


def places(*above: int) -> Ranks:
    return Ranks(np.array(above), np.zeros(len(above), np.int64))


def test_each_scorer_is_compared_with_warm_start_on_what_both_ranked() -> None:
    # Two days of 60 users each. Warm start finds all of the first day and none of the second; the frozen one none of the first and
    # half of the second; a week old there is a model on the second day only, which finds all of it.
    users = [b"u%d" % n for n in range(60)]
    found, not_found = [0] * 60, [SHOWN] * 60
    judged = together(
        [
            (1, asked(users), {WARM: places(*found), FROZEN: places(*not_found)}),
            (
                2,
                asked(users),
                {WARM: places(*not_found), FROZEN: places(*[0, SHOWN] * 30), "7 days old": places(*found)},
            ),
        ]
    )
    rows = {(row["scorer"], row["k"]): row for row in figures(judged)}
    assert rows[WARM, SHOWN]["recall"].value == pytest.approx(0.5)
    assert rows[FROZEN, SHOWN]["recall"].value == pytest.approx(0.25)
    assert rows[FROZEN, SHOWN]["warm_start_lead"].value == pytest.approx((60 * 1 - 30) / 120)
    assert rows["7 days old", SHOWN]["interactions"] == 60
    assert rows["7 days old", SHOWN]["warm_start_lead"] == pytest.approx((-1.0, -1.0, -1.0))
    assert rows[WARM, 100]["recall"].value == 1.0  # the place behind 50 others is among the first 100
    lower, upper = rows[FROZEN, SHOWN]["warm_start_lead"][1:]
    assert lower < 0.25 < upper
    sentences = verdict("toy", list(rows.values()))
    assert any("is worse than 7 days old" in sentence for sentence in sentences)
    assert len(sentences) == 2
    named = headline("toy", list(rows.values()))
    assert named["toy_warm_start"] == pytest.approx(0.5)
    assert named["toy_lead_over_7_days_old"] == pytest.approx(-1.0)
    assert named.keys() == {
        "toy_warm_start", "toy_frozen_before_the_first_day", "toy_lead_over_frozen_before_the_first_day",
        "toy_7_days_old", "toy_lead_over_7_days_old",
    }  # fmt: skip


def test_the_truth_ranks_the_interactions_that_the_pipeline_read() -> None:
    world = World(users=50, items=200, days=2, seed=1)
    logs = [world.log(day, 300) for day in range(2)]
    log: Log = logs[1]
    rows = np.random.default_rng(0).permutation(300)[:200]  # those with a reward, say, in the order of the users
    begun = (
        (FIRST_DAY.toordinal() - 719_163) + 1
    ) * 86_400_000  # of the second day, in milliseconds; 719,163 is 1970-01-01
    read = Interactions(
        [b""] * 200,
        np.array([b"u%d" % user for user in log.users[rows]], object),
        np.array([b"i%d" % item for item in log.items[rows]], object),
        (begun + (log.seconds[rows] * 1000).astype(np.int64)) * 1000,
        pa.array([[]] * 200, pa.list_(pa.binary())),
    )
    ranks = by_truth(world, 1, logs, read)
    above, tied = world.true_ranks(1, log)
    np.testing.assert_array_equal(ranks.above, above[rows])
    np.testing.assert_array_equal(ranks.tied, tied[rows])
    assert TRUTH not in warm_start.AGES
