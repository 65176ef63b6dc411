"""What needs no model, worked out by hand, and against a plain count over the interactions."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from benchmarks.baselines import COOCCURRENCE, POPULARITY, RECENT, TAKEN, Known
from components.evaluator.ranking import Ranks

DAY = 86_400_000_000
IDS = pa.array([b"a", b"b", b"c", b"d", b"gone"], pa.binary())


def ids(*values: bytes) -> NDArray[np.object_]:
    return np.array([*values, None], object)[:-1]


def histories(*of_each: list[bytes]) -> pa.ListArray:
    return pa.array(list(of_each), pa.list_(pa.binary()))


@pytest.fixture
def known() -> Known:
    """a is taken four times, three of them long ago; b three times and c twice, this week; "gone" once, and d never."""
    known = Known(IDS)
    known.add(ids(b"u", b"v", b"w"), ids(b"a", b"a", b"a"), np.array([0, 0, 1]), histories([], [], []))
    known.add(
        ids(b"u", b"v", b"w", b"u", b"v", b"w", b"w"),
        ids(b"b", b"b", b"b", b"c", b"c", b"a", b"gone"),
        20 * DAY + 1_000_000 * np.arange(7),
        histories([b"a"], [b"a"], [b"a"], [b"a", b"b"], [b"b"], [b"b"], [b"a"]),
    )
    return known


def ranked(known: Known, user: bytes, item: bytes, history: list[bytes]) -> dict[str, tuple[int, int]]:
    found = known.ranks(ids(user), ids(item), histories(history), IDS[:4], start=22 * DAY)
    return {name: (int(ranks.above[0]), int(ranks.tied[0])) for name, ranks in found.items()}


def test_popularity_is_that_of_all_days_and_recent_popularity_that_of_seven(known: Known) -> None:
    assert [ranked(known, b"x", item, [])[POPULARITY] for item in (b"a", b"b", b"c", b"d")] == [
        (0, 0), (1, 0), (2, 0), (3, 0),
    ]  # fmt: skip
    # In the last seven days b three times, c twice, a once.
    assert [ranked(known, b"x", item, [])[RECENT][0] for item in (b"b", b"c", b"a", b"d")] == [0, 1, 2, 3]


def test_a_users_items_rank_by_frequency_then_recency_then_popularity(known: Known) -> None:
    # w took a twice and b once; c and d, which w never took, follow by popularity.
    assert [ranked(known, b"w", item, [])[TAKEN][0] for item in (b"a", b"b", b"c", b"d")] == [0, 1, 2, 3]
    # u took a, b and c once each, c last.
    assert [ranked(known, b"u", item, [])[TAKEN][0] for item in (b"c", b"b", b"a", b"d")] == [0, 1, 2, 3]
    # Nobody knows x.
    assert ranked(known, b"x", b"b", [])[TAKEN] == ranked(known, b"x", b"b", [])[POPULARITY]


def test_cooccurrence_weighs_the_newer_items_of_a_history_more(known: Known) -> None:
    # a led to b three times, to c once and to "gone" once, b to c twice and to a once; a was taken four times, b three, c two. So
    # a's cosine with b is 3 / sqrt(5 * 3) = .77 and with c 1 / sqrt(5 * 2) = .32; that of b with c 2 / sqrt(3 * 2) = .82 and with a
    # 1 / sqrt(3 * 4) = .29.
    assert ranked(known, b"x", b"b", [b"a"])[COOCCURRENCE] == (0, 0)
    assert ranked(known, b"x", b"c", [b"a"])[COOCCURRENCE] == (1, 0)
    assert ranked(known, b"x", b"c", [b"b"])[COOCCURRENCE] == (0, 0)
    # Of a history with a and b, the newer at the end, c has .9 * .32 + .82 = 1.10 and b .9 * .77 = .70.
    assert ranked(known, b"x", b"c", [b"a", b"b"])[COOCCURRENCE] == (0, 0)
    # Nothing leads to d, which is the least popular.
    assert ranked(known, b"x", b"d", [b"a"])[COOCCURRENCE] == (3, 0)


def test_they_equal_a_plain_count_of_many_interactions_however_they_are_divided_into_days() -> None:
    chance = np.random.default_rng(0)
    names = [b"i%d" % n for n in range(30)]
    catalogue = pa.array(names, pa.binary())
    items = [names[n] for n in chance.integers(30, size=500)]
    users = [b"u%d" % n for n in chance.integers(20, size=500)]
    before = [[names[n] for n in chance.integers(30, size=length)] for length in chance.integers(4, size=500)]
    times = np.sort(chance.integers(20 * DAY, size=500))

    def all_of(cuts: list[int]) -> dict[str, Ranks]:
        known = Known(catalogue)
        for start, end in pairwise(cuts):
            known.add(ids(*users[start:end]), ids(*items[start:end]), times[start:end], histories(*before[start:end]))
        return known.ranks(ids(*users[:50]), ids(*items[:50]), histories(*before[:50]), catalogue, 20 * DAY)

    at_once, by_days = all_of([0, 500]), all_of([0, 1, 120, 121, 400, 500])
    for name, ranks in at_once.items():
        np.testing.assert_array_equal(ranks.above, by_days[name].above)
        np.testing.assert_array_equal(ranks.tied, by_days[name].tied)
    counts = Counter(items)
    recent = Counter(item for item, time in zip(items, times.tolist(), strict=True) if time >= 13 * DAY)
    for row in range(50):
        popular, own = [counts[n] for n in names], counts[items[row]]
        assert at_once[POPULARITY].above[row] == sum(count > own for count in popular)
        assert at_once[POPULARITY].tied[row] == sum(count == own for count in popular) - 1
        key = {n: (recent[n], counts[n]) for n in names}
        assert at_once[RECENT].above[row] == sum(key[n] > key[items[row]] for n in names)
