"""Logs of a service that does not exist, with what makes real ones hard, and with the truth beside them.

- Each item has a topic, and its popularity is a power of its rank. Popularity drifts, every item's by a clock of its own; new items
  come all day long, and are at their most popular when they come.
- Users are active by a power law too, and each has a few topics. A log is made of sessions, most of them in the evening; in one, an
  interaction often keeps to the topic of the one before.
- The reward is the share that was watched, whatever the item is; of one interaction in ten it is 0.
- `Motion` says how fast the world changes from day to day: items are born and die, users replace their topics.

So every probability is known: the chance of a topic, given the user and the interaction before, times the item's share of the
topic in that hour. `World.probabilities` gives it, `World.true_ranks` the places of the items by it, and `World.expected_recall`
the recall that a scorer which knows it is expected to reach: none can be expected to reach more.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from schemas.errors import UserError

FIRST_DAY = date(2026, 11, 23)
TOPICS, TOPICS_A_USER = 64, 4
HOURS, HOUR_SECONDS, DAY_SECONDS = 24, 3600.0, 86_400.0
STEEPNESS = 0.8  # of popularity and activity by rank
DRIFT, CLOCK_HOURS = 0.7, (12.0, 96.0)  # of the logarithm of popularity, and how long its cycles take
FRESH_FACTOR = 10.0  # how much more popular an item is at first
SESSION, GAP_SECONDS = 5.0, 40.0  # interactions a session and seconds between them, on average
STAY = 0.5  # the chance to keep to the topic
WITHOUT_REWARD = 0.1
DEVICES, DEVICE_SHARES = ("phone", "tablet", "computer", "television"), (0.55, 0.1, 0.2, 0.15)
CREATORS_AN_ITEM, CATEGORIES_A_TOPIC = 0.1, 3
ROWS_A_FILE = 250_000
NO_TOPIC = -1
FOR_EVER = 1e9  # seconds or days
QUERIES_AT_ONCE = 1024


@dataclass(frozen=True)
class Motion:
    """How fast a world changes. By default it is that of `benchmarks.pipeline`, in which nothing ends.

    Attributes:
        born: the share of all items that is born on each day.
        fresh_days: after how many days an item's first popularity is down to 1 / e.
        lifetime_days: mean days until an item leaves the catalogue; exponential, so that old items leave no sooner than new ones.
        taste_days: mean days until a user replaces a topic by another.
    """

    born: float = 0.02
    fresh_days: float = 1.0
    lifetime_days: float = FOR_EVER
    taste_days: float = FOR_EVER


class Log(NamedTuple):
    """A day's interactions, in the order of their times; each array is [interactions].

    Attributes:
        seconds: float64, since the day began.
        users: int64.
        items: int64.
        rewards: float32.
        devices: int64.
        previous: int64, the topic of the interaction before in the session; NO_TOPIC of the first.
    """

    seconds: NDArray[np.float64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    rewards: NDArray[np.float32]
    devices: NDArray[np.int64]
    previous: NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Users and items, and all that is true of them.

    Attributes:
        users: how many.
        items: how many there have been by the end of the last day.
        days: from FIRST_DAY on.
        seed: the same gives the same world and the same logs.
        motion: how fast all of this changes.
        topics: [items], each item's.
        popularity: [items], before drift and freshness.
        released: [items] float64, seconds from the first day's beginning; below 0 what was there before.
        gone: [items] float64, the same of the moment when it leaves.
        activity: [users], shares of all sessions.
        interests: for each day [users, TOPICS], each user's chance of each topic, which are its latent vector; an item's is its
            topic alone, as long as its share of it in that hour.
        clocks: [2, items], the length of the cycle of each item's popularity in hours, and its phase.
    """

    users: int
    items: int
    days: int = 1
    seed: int = 0
    motion: Motion = Motion()
    topics: NDArray[np.int64] = field(init=False, repr=False)
    popularity: NDArray[np.float64] = field(init=False, repr=False)
    released: NDArray[np.float64] = field(init=False, repr=False)
    gone: NDArray[np.float64] = field(init=False, repr=False)
    activity: NDArray[np.float64] = field(init=False, repr=False)
    interests: tuple[NDArray[np.float32], ...] = field(init=False, repr=False)
    clocks: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.items < 2 * TOPICS:
            raise UserError(f"expected at least {2 * TOPICS} items, two a topic, received {self.items}.")
        chance = np.random.default_rng([self.seed, 0])
        # The first item of each topic has always been there, so that none is ever empty.
        topics = np.concatenate([np.arange(TOPICS), chance.integers(TOPICS, size=self.items - TOPICS)])
        released = np.where(
            chance.random(self.items) < self.motion.born * self.days,
            chance.random(self.items) * self.days * DAY_SECONDS,
            -FOR_EVER,
        )
        released[:TOPICS] = -FOR_EVER
        lifetimes = np.random.default_rng([self.seed, 3]).exponential(self.motion.lifetime_days, self.items)
        gone = np.maximum(released, 0.0) + lifetimes * DAY_SECONDS
        gone[:TOPICS] = FOR_EVER * DAY_SECONDS
        favourites = chance.integers(TOPICS, size=(self.users, TOPICS_A_USER))
        shares = chance.dirichlet(np.ones(TOPICS_A_USER), self.users)
        made = {
            "topics": topics,
            "popularity": _power_law(self.items, chance),
            "released": released,
            "gone": gone,
            "activity": _power_law(self.users, chance),
            "interests": self._interests(favourites, shares),
            "clocks": np.stack([chance.uniform(*CLOCK_HOURS, self.items), chance.uniform(0, 2 * np.pi, self.items)]),
        }
        for name, values in made.items():
            object.__setattr__(self, name, values)

    def _interests(self, favourites: NDArray[np.int64], shares: NDArray[np.float64]) -> tuple[NDArray[np.float32], ...]:
        """Each day's, where of [users, TOPICS_A_USER] favourites some are replaced every night."""
        rows = np.arange(self.users)[:, np.newaxis]
        replaced = -np.expm1(-1 / self.motion.taste_days)
        interests: list[NDArray[np.float32]] = []
        for day in range(self.days):
            if day and self.motion.taste_days >= FOR_EVER:
                interests.append(interests[0])  # not a copy a day
                continue
            if day:
                chance = np.random.default_rng([self.seed, 4, day])
                others = chance.integers(TOPICS, size=favourites.shape)
                favourites = np.where(chance.random(favourites.shape) < replaced, others, favourites)
            of_day = np.zeros((self.users, TOPICS), np.float32)
            np.add.at(of_day, (rows, favourites), shares)
            interests.append(of_day)
        return tuple(interests)

    def in_catalogue(self, day: int) -> NDArray[np.int64]:
        """Return the items that are there at any time of a day, ascending."""
        return np.flatnonzero((self.released < (day + 1) * DAY_SECONDS) & (self.gone > day * DAY_SECONDS))

    def item_shares(self, day: int, hour: int) -> NDArray[np.float64]:
        """[items], each item's share of its topic in an hour; 0 while it is not there."""
        now = day * DAY_SECONDS + hour * HOUR_SECONDS
        cycle, phase = self.clocks
        drift = DRIFT * np.sin(2 * np.pi * now / HOUR_SECONDS / cycle + phase)
        age = (now - self.released) / DAY_SECONDS
        fresh = 1 + (FRESH_FACTOR - 1) * np.exp(-np.maximum(age, 0.0) / self.motion.fresh_days)
        weights = np.where((age >= 0) & (self.gone > now), self.popularity * np.exp(drift) * fresh, 0.0)
        return weights / np.bincount(self.topics, weights, TOPICS)[self.topics]

    def probabilities(
        self, day: int, hour: int, users: NDArray[np.int64], previous: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return [queries, items], the probability that each item is next.

        Args:
            day: from 0.
            hour: of the day.
            users: [queries].
            previous: [queries], the topic of the interaction before in the session, or NO_TOPIC.
        """
        chances = self.interests[day][users].astype(np.float64)
        stays = previous != NO_TOPIC
        chances[stays] *= 1 - STAY
        chances[np.flatnonzero(stays), previous[stays]] += STAY
        return chances[:, self.topics] * self.item_shares(day, hour)

    def expected_recall(self, day: int, log: Log, k: int) -> float:
        """Return the recall@k over a day's interactions, as expected of the scorer that knows the truth."""
        found = sum(np.partition(likely, -k, axis=1)[:, -k:].sum() for _, likely in self._likely(day, log))
        return float(found) / len(log.items)

    def true_ranks(self, day: int, log: Log) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each of a day's interactions, how many items are likelier than its own, and how many others are as likely."""
        above, tied = (np.zeros(len(log.items), np.int64) for _ in range(2))
        for chosen, likely in self._likely(day, log):
            true = likely[np.arange(len(chosen)), log.items[chosen]][:, np.newaxis]
            above[chosen] = (likely > true).sum(axis=1)
            tied[chosen] = (likely == true).sum(axis=1) - 1
        return above, tied

    def _likely(self, day: int, log: Log) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Yield some of a day's interactions, and [these, items] the probability of each item, until all were yielded."""
        hours = (log.seconds // HOUR_SECONDS).astype(int)
        for hour in np.unique(hours):
            of_hour = np.flatnonzero(hours == hour)
            for start in range(0, len(of_hour), QUERIES_AT_ONCE):
                chosen = of_hour[start : start + QUERIES_AT_ONCE]
                yield chosen, self.probabilities(day, hour, log.users[chosen], log.previous[chosen])

    def log(self, day: int, interactions: int) -> Log:
        """Return a day's interactions.

        Args:
            day: from 0.
            interactions: how many.
        """
        chance = np.random.default_rng([self.seed, 1, day])
        lengths = chance.geometric(1 / SESSION, interactions)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        starts = starts[: np.searchsorted(starts, interactions)]
        sessions = len(starts)
        number = np.zeros(interactions, np.int64)
        number[starts[1:]] = 1
        session = np.cumsum(number)
        begins = np.zeros(interactions, bool)
        begins[starts] = True

        by_hour = 1 + 0.8 * np.sin(2 * np.pi * (np.arange(HOURS) - 14) / HOURS)  # most of them at 20 o'clock
        begun = (chance.choice(HOURS, sessions, p=by_hour / by_hour.sum()) + chance.random(sessions)) * HOUR_SECONDS
        since = np.cumsum(chance.exponential(GAP_SECONDS, interactions))
        since -= since[starts][session]
        lasted = since[np.append(starts[1:], interactions) - 1]
        # None goes on behind midnight.
        seconds = np.minimum(begun, DAY_SECONDS - GAP_SECONDS * chance.random(sessions) - lasted)[session] + since
        users = chance.choice(self.users, sessions, p=self.activity)[session]

        # An interaction that does not stay takes a topic of the user's; one that does, that of the last which did not.
        draws = begins | (chance.random(interactions) >= STAY)
        cumulative = np.cumsum(self.interests[day], axis=1, dtype=np.float64)
        drawn = np.empty(interactions, np.int64)
        for start in range(0, interactions, ROWS_A_FILE):  # [rows, topics] at once
            rows = cumulative[users[start : start + ROWS_A_FILE]]
            points = chance.random((len(rows), 1)) * rows[:, -1:]
            drawn[start : start + ROWS_A_FILE] = (points >= rows).sum(axis=1)
        topics = drawn[np.maximum.accumulate(np.where(draws, np.arange(interactions), 0))]
        previous = np.where(begins, NO_TOPIC, np.roll(topics, 1))

        made = Log(
            seconds,
            users,
            self._items(day, seconds, topics, chance.random(interactions)),
            _rewards(chance, interactions),
            chance.choice(len(DEVICES), sessions, p=DEVICE_SHARES)[session],
            previous,
        )
        order = np.argsort(seconds, kind="stable")
        return Log._make(values[order] for values in made)

    def _items(
        self, day: int, seconds: NDArray[np.float64], topics: NDArray[np.int64], points: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return an item of each topic, drawn by the shares of the hour; `points` are uniform in [0, 1)."""
        by_topic = np.argsort(self.topics, kind="stable")
        sizes = np.bincount(self.topics, minlength=TOPICS)
        ends = np.cumsum(sizes)
        hours = (seconds // HOUR_SECONDS).astype(int)
        items = np.empty(len(seconds), np.int64)
        for hour in range(HOURS):
            chosen = np.flatnonzero(hours == hour)
            before = np.concatenate([[0.0], np.cumsum(self.item_shares(day, hour)[by_topic])])
            first, last = before[(ends - sizes)[topics[chosen]]], before[ends[topics[chosen]]]
            items[chosen] = by_topic[np.searchsorted(before, first + points[chosen] * (last - first), side="right") - 1]
        return items


def write(world: World, interactions: list[int], folder: Path) -> list[Log]:
    """Write a folder of interactions and a catalogue a day, as `benchmarks/service` reads them.

    Args:
        world: whose.
        interactions: of each day.
        folder: gets `interactions/YYYY-MM-DD/` and `catalogue/YYYY-MM-DD/`.

    Returns:
        Each day's log.
    """
    logs = []
    for day, count in enumerate(interactions):
        name = str(FIRST_DAY + timedelta(days=day))
        log = world.log(day, count)
        _write_log(day, log, folder / "interactions" / name)
        write_catalogue(world, world.in_catalogue(day), folder / "catalogue" / name)
        logs.append(log)
    return logs


def milliseconds(day: int, log: Log) -> NDArray[np.int64]:
    """[interactions] a day's times as they are written, since 1970-01-01."""
    begun = (FIRST_DAY - date(1970, 1, 1) + timedelta(days=day)).total_seconds()
    return ((begun + log.seconds) * 1000).astype(np.int64)


def _write_log(day: int, log: Log, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "user": _named("u", log.users),
            "item": _named("i", log.items),
            "time": pa.array(milliseconds(day, log)).cast(pa.timestamp("ms", "UTC")),
            "reward": pa.array(log.rewards),
            "device": pa.array(DEVICES).take(pa.array(log.devices)),
        }
    )
    for part, start in enumerate(range(0, table.num_rows, ROWS_A_FILE)):
        parquet.write_table(table.slice(start, ROWS_A_FILE), folder / f"part-{part:05d}.parquet")


def write_catalogue(world: World, there: NDArray[np.int64], folder: Path) -> None:
    """Write a catalogue.

    Args:
        world: whose.
        there: the items that are in it.
        folder: destination.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng([world.seed, 2])
    creators = chance.integers(max(1, int(CREATORS_AN_ITEM * world.items)), size=world.items)
    categories = world.topics * CATEGORIES_A_TOPIC + chance.integers(CATEGORIES_A_TOPIC, size=world.items)
    noise = chance.integers(TOPICS * CATEGORIES_A_TOPIC, size=world.items)  # one that says nothing
    seconds = chance.lognormal(5.0, 1.0, world.items)
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(len(there) + 1) * 2, pa.int32()),
        _named("c", np.stack([categories[there], noise[there]], axis=1).reshape(-1)),
    )
    table = pa.table(
        {
            "item": _named("i", there),
            "title": _named("Item ", there),
            "categories": lists,
            "creator": _named("m", creators[there]),
            "seconds": pa.array(seconds[there].astype(np.float32)),
        }
    )
    parquet.write_table(table, folder / "items.parquet")


def _named(prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def _power_law(size: int, chance: np.random.Generator) -> NDArray[np.float64]:
    weights = np.arange(1, size + 1) ** -STEEPNESS
    return chance.permutation(weights / weights.sum())


def _rewards(chance: np.random.Generator, interactions: int) -> NDArray[np.float32]:
    rewards = chance.beta(2.0, 1.0, interactions)
    rewards[chance.random(interactions) < WITHOUT_REWARD] = 0.0
    return rewards.astype(np.float32)


def main() -> None:
    """Run the command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, default=Path("var/benchmarks/logs"))
    arguments.add_argument("--interactions", type=int, nargs="+", default=[100_000], help="of each day")
    arguments.add_argument("--users", type=int, default=20_000)
    arguments.add_argument("--items", type=int, default=50_000)
    arguments.add_argument("--seed", type=int, default=0)
    for of_motion in fields(Motion):
        arguments.add_argument(f"--{of_motion.name.replace('_', '-')}", type=float, default=of_motion.default)
    options = arguments.parse_args()
    motion = Motion(**{of_motion.name: getattr(options, of_motion.name) for of_motion in fields(Motion)})
    write(
        World(options.users, options.items, len(options.interactions), options.seed, motion),
        options.interactions,
        options.folder,
    )


if __name__ == "__main__":
    main()
