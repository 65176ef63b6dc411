"""Invented logs are what their truth says: every share is that of the definition, within what chance allows."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from benchmarks import logs
from benchmarks.logs import DAY_SECONDS, HOUR_SECONDS, NO_TOPIC, STAY, TOPICS, Log, Motion, World, write
from schemas.errors import UserError

ROWS = 40_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(users=500, items=400, days=2, seed=7)


@pytest.fixture(scope="module")
def log(world: World) -> Log:
    return world.log(1, ROWS)


@pytest.fixture(scope="module")
def moving() -> World:
    return World(users=2000, items=4000, days=10, seed=3, motion=Motion(0.03, 2.0, lifetime_days=20.0, taste_days=10.0))


def of_hour(log: Log, hour: int) -> Log:
    return Log._make(values[log.seconds // HOUR_SECONDS == hour] for values in log)


def test_probabilities_of_all_items_add_up_to_one(world: World) -> None:
    users, previous = np.arange(6), np.array([NO_TOPIC, 0, 63, NO_TOPIC, 5, 5])
    likely = world.probabilities(0, 20, users, previous)
    assert likely.shape == (6, 400)
    np.testing.assert_allclose(likely.sum(axis=1), 1.0)


def test_an_interaction_stays_with_its_topic_as_often_as_its_probability_says(world: World, log: Log) -> None:
    # By definition it stays with STAY, and otherwise comes back to the topic by the user's interest in it.
    within = log.previous != NO_TOPIC
    stayed = world.topics[log.items[within]] == log.previous[within]
    interest = world.interests[1][log.users[within], log.previous[within]]
    expected = (STAY + (1 - STAY) * interest).mean()
    assert stayed.mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / within.sum()))


def test_items_are_drawn_as_their_probabilities_say(world: World, log: Log) -> None:
    hour = of_hour(log, 20)
    expected = world.probabilities(1, 20, hour.users, hour.previous).sum(axis=0)
    counts = np.bincount(hour.items, minlength=world.items)
    likely = expected > 5  # where a normal distribution will do
    assert likely.sum() > 50
    assert (counts[expected == 0] == 0).all()
    # A sum of independent draws varies by no more than its expectation; chance alone gives 4 deviations once in 16,000.
    assert (np.abs(counts - expected)[likely] < 4.5 * np.sqrt(expected[likely])).all()


def test_nothing_is_chosen_before_it_is_there_and_new_items_come_during_the_day(world: World, log: Log) -> None:
    begun_hour = logs.DAY_SECONDS + log.seconds // HOUR_SECONDS * HOUR_SECONDS
    assert (world.released[log.items] <= begun_hour).all()
    new = world.released > logs.DAY_SECONDS
    assert 0 < new.sum() < 0.1 * world.items
    assert new[log.items].any()


def test_popularity_drifts(world: World) -> None:
    there = world.released < 0
    morning, evening = (world.item_shares(0, hour)[there] for hour in (0, 12))
    change = np.abs(np.log(evening / morning))
    assert 0.1 < np.median(change) < 2.0


def test_popularity_and_activity_follow_a_power_law(log: Log) -> None:
    # The sum of rank ** -0.8 up to n is about 5 * n ** 0.2 - 4.44: 6.49 for 50, 12.89 for 500, so that a tenth of the users has
    # .504 of all. Items have theirs within topics, some of which are more popular. If all were alike, it would be about .12.
    users, items = (np.sort(np.bincount(values))[::-1] for values in (log.users, log.items))
    assert users[:50].sum() / ROWS == pytest.approx(0.504, abs=0.03)
    assert 0.3 < items[:40].sum() / ROWS < 0.6


def test_users_come_in_sessions(log: Log) -> None:
    # Interactions a session are geometric with mean 5, so one interaction in five begins one.
    assert (log.previous == NO_TOPIC).mean() == pytest.approx(1 / logs.SESSION, abs=0.01)
    assert (np.diff(log.seconds) >= 0).all()
    assert log.seconds[0] >= 0 and log.seconds[-1] < logs.DAY_SECONDS
    assert len(np.unique(log.seconds)) == ROWS


def test_rewards_are_shares_and_some_are_nothing(log: Log) -> None:
    assert (log.rewards == 0).mean() == pytest.approx(logs.WITHOUT_REWARD, abs=0.01)
    assert log.rewards.max() <= 1.0
    # Beta(2, 1) has the mean 2/3.
    assert log.rewards[log.rewards > 0].mean() == pytest.approx(2 / 3, abs=0.01)


def test_items_are_born_and_die_as_the_motion_says(moving: World) -> None:
    # .03 of 4,000 items a day are 120 a day (+- 4 deviations of 10.5). Of what is there, exp(-1 / 20) is left a day later: of those
    # that were there at first exp(-9 / 20) = .638 after nine days.
    first = moving.released < 0
    born = [int(((moving.released // DAY_SECONDS) == day).sum()) for day in range(10)]
    assert all(78 < number < 162 for number in born)
    left = (moving.gone > 9 * DAY_SECONDS)[first].mean()
    assert left == pytest.approx(np.exp(-9 / 20), abs=4 * np.sqrt(0.25 / first.sum()))
    lived = ((moving.gone - moving.released) / DAY_SECONDS)[~first]
    assert lived.mean() == pytest.approx(20.0, abs=4 * 20 / np.sqrt(len(lived)))


def test_removed_items_are_neither_taken_nor_in_the_catalogue(moving: World) -> None:
    log = moving.log(9, ROWS)
    begun_hour = 9 * DAY_SECONDS + log.seconds // HOUR_SECONDS * HOUR_SECONDS
    assert (moving.gone[log.items] > begun_hour).all()
    assert (moving.gone < 9 * DAY_SECONDS).sum() > 500
    assert np.isin(log.items, moving.in_catalogue(9)).all()
    assert not np.intersect1d(moving.in_catalogue(9), np.flatnonzero(moving.gone < 9 * DAY_SECONDS)).size
    np.testing.assert_allclose(np.bincount(moving.topics, moving.item_shares(9, 12), TOPICS), 1.0)


def test_users_replace_their_topics_as_often_as_the_motion_says(moving: World, world: World) -> None:
    # A topic survives a night by exp(-1 / 10), or where another draw brings it again; what a user has of a topic on both days is
    # the sum over topics of the smaller of the two shares: at least the share that nobody touched, exp(-1 / 10) = .905.
    def kept(days: int) -> float:
        return float(np.minimum(moving.interests[0], moving.interests[days]).sum(axis=1).mean())

    assert 0.905 - 0.02 < kept(1) < 0.905 + 0.03
    assert np.exp(-0.9) - 0.02 < kept(9) < np.exp(-0.9) + 0.1
    np.testing.assert_allclose(moving.interests[9].sum(axis=1), 1.0, rtol=1e-5)
    assert world.interests[0] is world.interests[1]  # by default they keep them


def test_the_scorer_that_knows_the_truth_has_its_expected_recall(moving: World) -> None:
    rows, k = 2000, 50
    log = moving.log(5, rows)
    above, tied = moving.true_ranks(5, log)
    expected = moving.expected_recall(5, log, k)
    assert 0.1 < expected < 0.9
    assert (above < k).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / rows))
    # By definition: the items that are likelier than the first interaction's.
    likely = moving.probabilities(5, int(log.seconds[0] // HOUR_SECONDS), log.users[:1], log.previous[:1])[0]
    assert above[0] == (likely > likely[log.items[0]]).sum()
    assert tied[0] == (likely == likely[log.items[0]]).sum() - 1


def test_a_seed_is_a_log(world: World, log: Log) -> None:
    same, other = (World(500, 400, 2, seed).log(1, ROWS) for seed in (7, 8))
    assert all((getattr(same, name) == getattr(log, name)).all() for name in Log._fields)
    assert (other.items != log.items).any()
    assert (world.log(0, ROWS).items != log.items).any()


def test_the_written_files_are_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROWS_A_FILE", 300)
    world = World(users=50, items=200, days=2)
    _, log = write(world, [100, 1000], tmp_path)
    folder = tmp_path / "interactions" / "2026-11-24"
    assert [path.name for path in sorted(folder.iterdir())] == [f"part-0000{n}.parquet" for n in range(4)]
    written = parquet.read_table(folder)
    assert written.column("item").to_pylist() == [f"i{item}" for item in log.items]
    assert written.column("user").to_pylist()[-1] == f"u{log.users[-1]}"
    times = written.column("time").to_pylist()
    begun = datetime(2026, 11, 24, tzinfo=UTC)
    assert (times[500] - begun).total_seconds() == pytest.approx(log.seconds[500], abs=0.001)
    items = [parquet.read_table(tmp_path / "catalogue" / f"2026-11-{day}").column("item") for day in (23, 24)]
    assert len(items[0]) < len(items[1]) <= 200
    assert pc.all(pc.is_in(written.column("item"), items[1])).as_py()


def test_too_few_items_are_refused() -> None:
    with pytest.raises(UserError, match="at least 128 items"):
        World(users=10, items=127)
