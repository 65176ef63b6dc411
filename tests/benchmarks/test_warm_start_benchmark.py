"""The benchmark of warm start: what it says of ranks that are known, and that the truth finds its interactions again."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from pyarrow import parquet

from benchmarks import warm_start
from benchmarks.baselines import POPULARITY
from benchmarks.days import Interactions
from benchmarks.logs import FIRST_DAY, World, write
from benchmarks.warm_start import (
    FROZEN,
    SHOWN,
    TRUTH,
    WARM,
    Stream,
    by_truth,
    figures,
    headline,
    judge,
    reported,
    together,
    verdict,
)
from components.evaluator.ranking import Ranks
from components.next_day.record import Judgement
from components.trainer.settings import TrainerSettings
from pipeline.records import Run
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec


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


def test_each_scorer_is_compared_with_warm_start_on_common_interactions() -> None:
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


def test_the_truth_ranks_the_interactions_that_the_pipeline_read(tmp_path: Path) -> None:
    """Of 30,000 times some are a millisecond apart by the order in which a day's beginning is added and they are rounded."""
    world = World(users=50, items=200, days=2, seed=1)
    logs = write(world, [300, 30_000], tmp_path)
    files = sorted((tmp_path / "interactions" / str(FIRST_DAY + timedelta(days=1))).iterdir())
    table = pa.concat_tables([parquet.read_table(file) for file in files])
    rows = np.random.default_rng(0).permutation(30_000)[:20_000]  # those with a reward, say, in the order of the users
    users, items = (table[name].cast(pa.binary()).to_numpy()[rows] for name in ("user", "item"))
    times = table["time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()[rows]
    empty = pa.array([[]] * len(rows), pa.list_(pa.binary()))
    ranks = by_truth(world, 1, logs, Interactions([b""] * len(rows), users, items, times, empty))
    above, tied = world.true_ranks(1, logs[1])
    np.testing.assert_array_equal(ranks.above, above[rows])
    np.testing.assert_array_equal(ranks.tied, tied[rows])
    assert TRUTH not in warm_start.AGES


def test_runs_report_means_over_interactions() -> None:
    def run(day: str, name: str, ranked: int, model: float, popularity: float) -> Run:
        metrics = {"candidate": {"recall_at_50": [model, 0, 1]}, "popularity": {"recall_at_50": [popularity, 0, 1]}}
        judged = Judgement(model=1, model_span=1, interactions=ranked, ranked=ranked, not_in_catalogue=0)
        return Run(name, day, "complete", judgement=judged, next_day_metrics={"all": metrics})

    runs = [
        run("1998-03-26", "before", 1000, 1.0, 1.0),
        run("1998-03-27", "first", 1000, 0.9, 0.9),
        run("1998-03-27", "again", 300, 0.5, 0.1),  # the last of a day counts
        run("1998-03-28", "second", 100, 0.1, 0.5),
        Run("no model", "1998-03-29", "complete"),
    ]
    assert reported(runs, date(1998, 3, 27), 14) == pytest.approx({"model": 0.4, "popularity": 0.2})


SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at", "reward": "liked"},
        "catalogue": {"item": "item"},
        "tables": {
            "item": {"width": 8, "vocabulary": {"min_count": 1}, "hash_buckets": 4},
            "user": {"width": 8, "vocabulary": {"min_count": 1}, "hash_buckets": 4},
        },
        "query": {"user": {"kind": "id", "table": "user"}, "past": {"kind": "history", "table": "item", "last": 3}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
SETTINGS = TrainerSettings.model_validate(
    {"towers": {"query": [8], "item": [8]}, "batch_size": 64, "epochs": 8, "learning_rate": 0.1}
)


def example(item: bytes, user: bytes = b"", at: int = 0, past: Sequence[bytes] = ()) -> bytes:
    made = tf.train.Example()
    values = {CANDIDATE_ID: [item], "item": [item], QUERY_ID: [user], "user": [user], "past": list(past)}
    for name, of_name in values.items():
        made.features.feature[name].bytes_list.value.extend(of_name)
    made.features.feature[TIMESTAMP].int64_list.value.append(at)
    made.features.feature[REWARD].float_list.value.append(1.0)
    return made.SerializeToString(deterministic=True)


def test_two_days_are_judged_before_they_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two groups of users, each with 20 items of its own: by chance a quarter is among the first 10 of 40 items, and half of those
    # of the user's own group. What a user took the days before says which group it is.
    anew = "anew on all days"
    monkeypatch.setattr(warm_start, "WINDOWS", {anew: None})
    chance = np.random.default_rng(0)
    first = date(2026, 11, 24)
    examples = []
    for day in range(3):
        begun = ((first - date(1970, 1, 1)).days + day - 1) * 86_400_000_000
        for user in range(40):
            taken = [b"i%d" % (20 * (user % 2) + n) for n in chance.permutation(20)[:8]]
            for number, item in enumerate(taken):
                time = begun + number * 1_000_000
                examples.append(example(item, b"u%d" % user, time, taken[max(0, number - 3) : number]))
    catalogue = [example(b"i%d" % n) for n in range(40)]

    def there(number: int, ids: pa.Array) -> NDArray[np.bool_]:
        return np.ones(len(ids), bool)

    judged = judge(Stream("groups", SPEC, SETTINGS, examples, catalogue, first, 2, there))
    assert np.bincount(judged.days).tolist() == [0, 320, 320]
    recall = {scorer: by_cutoff[10].reshape(2, -1).mean(axis=1) for scorer, by_cutoff in judged.hits.items()}
    assert (recall[WARM] > 0.4).all() and (recall[WARM] < 0.6).all()
    assert recall[FROZEN][0] == recall[WARM][0]  # nothing was learnt since
    assert (judged.hits[anew][10][:320] == judged.hits[WARM][10][:320]).all()  # nor was there another day to start from
    assert recall[FROZEN][1] != recall[WARM][1] != recall[anew][1]
    assert (recall[POPULARITY] < 0.35).all()
    assert np.isnan(judged.hits["2 days old"][10][:320]).all()
    assert recall["2 days old"][1] == recall[FROZEN][1]  # on the second day it is the same model
