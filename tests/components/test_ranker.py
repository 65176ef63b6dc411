"""Held-out interactions through the Ranker by Beam, against what each of its numbers is by definition."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.digests import is_drawn
from components.evaluator import block_search, catalogue, ranked, slices
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    CANDIDATE,
    FILTERED_QUERIES,
    INTERACTIONS,
    NEW_QUERIES_OLD_ITEMS,
    OLD_QUERIES_NEW_ITEMS,
    POPULARITY,
    QUERIES,
    SCORERS,
    SEARCHED_QUERIES,
    SIMILAR_ITEMS,
)
from tests.components.ranked_world import (
    DAY,
    ITEMS,
    START,
    Row,
    World,
    expected_places,
    indexed,
    item_features,
    log,
    make_world,
    scores_of,
    taken_before,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("ranker"))


@pytest.fixture(scope="module")
def exact(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with one index of exact search, and what the Ranker leaves of it, in the folder `exact`."""
    index, retriever = indexed(world, tmp_path_factory.mktemp("exact"), kind="flat")
    made = replace(world, index=index, retriever=retriever)
    made.rank("exact")
    return made


@pytest.mark.parametrize("exclude_history", [False, True, "all"])
def test_places_are_those_by_definition(world: World, exclude_history: bool | str) -> None:
    name = f"places{exclude_history}"
    world.rank(name, exclude_history=exclude_history)
    found = world.read(name)
    training = [each for each in log()[0] if each.reward]
    rewarded = [row for row in log()[1] if row.reward]
    assert {(row.user, row.item, row.time) for row in rewarded} == found.keys()
    for row in rewarded:
        each = found[row.user, row.item, row.time]
        left_out = row.past if exclude_history else ()
        if exclude_history == "all":
            left_out += tuple(taken_before(row, training))
        expected = expected_places(world, row, left_out)
        assert {scorer for scorer in SCORERS if ranked.rank_feature(scorer) in each} == expected.keys()
        for scorer, of_scorer in expected.items():
            assert each[ranked.rank_feature(scorer)] == of_scorer, (row, scorer)
    assert sum(ranked.rank_feature(AS_NEW) in each for each in found.values()) > 5
    assert sum(ranked.rank_feature(SIMILAR_ITEMS) in each for each in found.values()) > 50


def test_sets_and_slices(world: World) -> None:
    world.rank("slices")
    found = world.read("slices")
    training = [row for row in log()[0] if row.reward]
    counts = np.array([sum(row.item == item for row in training) for item in ITEMS])
    parts = slices.popularity_parts(counts)
    before = {row.item for row in training if row.time < START}
    tags = Counter(t for row in log()[1] if row.reward for t in item_features(row.item)["tags"])
    commonest = tags.most_common(1)[0][0]
    for (user, item, time), each in found.items():
        row = next(row for row in log()[1] if (row.user, row.item, row.time) == (user, item, time))
        assert each[slices.feature("item_popularity")] == [str(parts[ITEMS.index(item)]).encode()]
        # Item 39 has no interaction before the day, but a row of its own in the last blessed model.
        is_known = item in before or item == ITEMS[39]
        assert each[slices.feature("item_age")] == [b"known" if is_known else b"fresh"]
        assert each[slices.feature("user")] == [b"new" if user == b"newcomer" else b"known"]
        assert each[slices.feature("history_length")] == [b"1-4" if row.past else b"0"]
        assert each[slices.feature("age")] == [b">=30" if row.age >= 30 else b"<30"]
        assert each[slices.feature("device")] == [row.device]
        assert each[slices.feature("event_kind")] == [row.event]
        of_item = {tag if tag == commonest else b"(other)" for tag in item_features(item)["tags"]} or {b"(none)"}
        assert set(each[slices.feature("tags")]) == of_item
        # The newcomer's one query has items 1, 2 (twice, which is one example here) and 39.
        sets = {ITEMS[2]: [3, 2]}.get(item, [3, 1]) if user == b"newcomer" else each[ranked.TRUE_ITEMS]
        assert each[ranked.TRUE_ITEMS] == sets


def test_sums_cover_the_retrieved_items(world: World) -> None:
    world.rank("sums")
    training = [row for row in log()[0] if row.reward]
    counts = np.array([sum(row.item == item for row in training) for item in ITEMS])
    share, bits = counts / counts.sum(), -np.log2((counts + 1) / (counts.sum() + len(ITEMS)))
    rewarded = [row for row in log()[1] if row.reward]
    of_queries: dict[tuple[Any, ...], list[Row]] = {}
    for row in rewarded:
        of_queries.setdefault((row.user, row.past, row.device, row.age), []).append(row)
    sums, retrieved = world.sums("sums", CANDIDATE)
    top = {key: np.argsort(-scores_of(world.model, rows[0]))[:5] for key, rows in of_queries.items()}
    assert sums[INTERACTIONS] == len(rewarded) and sums[QUERIES] == pytest.approx(len(of_queries))
    assert retrieved == {row for rows in top.values() for row in rows.tolist()}
    assert sums["popularity_at_5"] == pytest.approx(sum(share[rows].mean() for rows in top.values()))
    assert sums["novelty_at_5"] == pytest.approx(sum(bits[rows].mean() for rows in top.values()))
    assert sums[SEARCHED_QUERIES] == pytest.approx(sums[QUERIES])
    assert 0.0 < sums["index_recall_at_5"] / sums[QUERIES] < 1.0  # one of eight lists
    # A twentieth are three items, which are all looked at; where all pass, one of the lists has enough, and is all that is.
    assert 0 < sums[FILTERED_QUERIES] <= sums[QUERIES]
    assert sums["filtered_recall_5_percent_at_5"] == sums[FILTERED_QUERIES]
    assert 0.0 < sums["filtered_recall_100_percent_at_5"] < sums[FILTERED_QUERIES]
    places = [expected_places(world, row, ())[CANDIDATE] for row in rewarded]
    assert sums["recall_at_10"] == sum(above < 10 for above, _ in places)
    of_popularity, retrieved = world.sums("sums", POPULARITY)
    assert retrieved == set(np.argsort(-counts, kind="stable")[:5].tolist())
    assert of_popularity["index_recall_at_5"] == of_popularity[FILTERED_QUERIES] == 0.0
    drawn = [row for row in rewarded if is_drawn(row.item, DAY, 0.2)]
    assert world.sums("sums", AS_NEW)[0][INTERACTIONS] == len(drawn)
    after_another = [expected_places(world, row)[SIMILAR_ITEMS] for row in rewarded if row.past]
    alike, retrieved = world.sums("sums", SIMILAR_ITEMS)
    assert alike[INTERACTIONS] == len(after_another) < len(rewarded) and not retrieved
    assert alike["recall_at_10"] == sum(above < 10 for above, _ in after_another)


def test_what_needs_another_search_is_measured_on_whole_users(world: World) -> None:
    rewarded = [row for row in log()[1] if row.reward]
    world.rank("sampled", sampled_interactions=40)  # some groups have users of both kinds
    is_sampled = {row.user: is_drawn(row.user, DAY, 40 / len(rewarded)) for row in rewarded}
    assert 0 < sum(is_sampled.values()) < len(is_sampled)
    for (user, item, time), each in world.read("sampled").items():
        row = next(row for row in rewarded if (row.user, row.item, row.time) == (user, item, time))
        expected = expected_places(world, row)
        for scorer in (SIMILAR_ITEMS, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS):
            if not is_sampled[user]:
                expected.pop(scorer, None)
        assert {scorer: each[name] for scorer in SCORERS if (name := ranked.rank_feature(scorer)) in each} == expected
    sums, _ = world.sums("sampled", CANDIDATE)
    of_queries = {(row.user, row.past, row.device, row.age) for row in rewarded if is_sampled[row.user]}
    assert sums[SEARCHED_QUERIES] == pytest.approx(len(of_queries))
    assert 0.0 < sums["index_recall_at_5"] < sums[SEARCHED_QUERIES]
    assert sums[INTERACTIONS] == len(rewarded) and sums[FILTERED_QUERIES] > 0


def test_a_day_of_which_no_user_is_sampled(world: World) -> None:
    world.rank("nobody", sampled_interactions=1)
    found = world.read("nobody").values()
    assert all(ranked.rank_feature(CANDIDATE) in each for each in found)
    aside = (SIMILAR_ITEMS, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
    assert not any(ranked.rank_feature(scorer) in each for each in found for scorer in aside)
    sums, _ = world.sums("nobody", CANDIDATE)
    assert sums[SEARCHED_QUERIES] == sums["index_recall_at_5"] == 0.0


def test_several_workers_leave_the_same_files_to_the_byte(world: World) -> None:
    assert world.rank("one") == world.rank("three", workers=3)


def test_four_shards_of_the_catalogue_leave_the_same_files_to_the_byte(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_search, "BLOCK_ITEMS", len(ITEMS) // 4)
    whole = world.rank("whole")
    monkeypatch.setattr(block_search, "SHARD_BYTES", 1)
    assert world.rank("shards") == whole


@pytest.mark.parametrize("stitched", [True, False])
def test_an_index_in_shards_is_judged_as_one(
    world: World, exact: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stitched: bool
) -> None:
    """Exact search in four shards, one of which is in memory at a time: the same metrics as of one index, to the last digit."""
    monkeypatch.setattr(catalogue, "RETRIEVER_BYTES", 1)
    index, retriever = indexed(world, tmp_path, kind="flat", shards=4, stitched=stitched)
    shards = replace(world, index=index, retriever=retriever)
    name = f"shards-{stitched}"
    shards.rank(name)
    (whole, all_of_one), (found, retrieved) = exact.sums("exact", CANDIDATE), shards.sums(name, CANDIDATE)
    assert found == whole and retrieved == all_of_one
    assert found["index_recall_at_5"] == found[QUERIES]
    assert found["filtered_recall_5_percent_at_5"] == found[FILTERED_QUERIES] > 0
    assert shards.read(name) == exact.read("exact")


def test_a_first_run_has_no_baseline_and_uses_trainings_counts(world: World) -> None:
    world.rank("first", has_baseline=False)
    found = world.read("first")
    others = (BASELINE, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
    assert all(ranked.rank_feature(scorer) not in each for each in found.values() for scorer in others)
    # Nothing was carried, and of the day's own interactions none is from before it.
    assert {each[slices.feature("item_age")][0] for each in found.values()} == {b"fresh"}
