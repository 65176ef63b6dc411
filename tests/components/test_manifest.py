"""Which versions are in force, and which one a rollback goes back to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.pusher.manifest import Manifest, in_force, rollback_source, withdrawn_by
from schemas.errors import UserError


def version(number: int, restores: int | None = None, parts: tuple[str, ...] = ("query_tower", "index")) -> Manifest:
    places = {part: f"{part}/{number}" for part in parts}
    return Manifest(version=number, day="2026-11-24", run="run", model="model", parts=places, restores=restores)


def numbers(manifests: list[Manifest]) -> list[int]:
    return [manifest.version for manifest in manifests]


def test_each_rollback_goes_back_one_further() -> None:
    pushed = [version(1), version(2), version(3)]
    assert rollback_source(pushed, None).version == 2
    once = [*pushed, version(4, restores=2)]
    assert (numbers(in_force(once)), rollback_source(once, None).version) == ([1, 4], 1)
    twice = [*once, version(5, restores=1)]
    assert numbers(in_force(twice)) == [5]
    with pytest.raises(UserError, match="found none in force before 5"):
        rollback_source(twice, None)


def test_a_withdrawn_version_is_not_restored() -> None:
    # 3 was bad, and so is 5; the rollback from 5 passes over 3 to the content of 2, of which 4 has a copy.
    known = [version(1), version(2), version(3), version(4, restores=2), version(5)]
    assert rollback_source(known, None).version == 4
    assert numbers(withdrawn_by(version(6, restores=2), known)) == [5]


def test_a_version_that_is_named_is_gone_back_to_wherever_it_is() -> None:
    known = [version(1), version(2), version(3), version(4, restores=1)]
    assert rollback_source(known, 2).version == 2
    # Forward again: 3 was good after all. That withdraws nothing, and a later rollback restores 1.
    forward = [*known, version(5, restores=3)]
    assert withdrawn_by(forward[-1], known) == []
    assert (numbers(in_force(forward)), rollback_source(forward, None).version) == ([4, 5], 4)


def test_a_rollback_over_several_versions_withdraws_all_of_them() -> None:
    known = [version(1), version(2), version(3)]
    assert numbers(withdrawn_by(version(4, restores=1), known)) == [2, 3]
    assert numbers(withdrawn_by(known[0], known)) == [2, 3]


def test_the_source_of_a_rollback_need_not_be_there_any_more() -> None:
    # Retention left the bad version and the rollback; 5 was pushed since.
    known = [version(3), version(4, restores=2), version(5)]
    assert rollback_source(known, None).version == 4


@pytest.mark.parametrize(
    ("known", "to", "sentence"),
    [
        ([], None, "nothing was pushed yet"),
        ([version(1)], None, "found none in force before 1"),
        ([version(1), version(2)], 7, r"received 7\. There are: 1, 2"),
        ([version(1), version(2)], 2, "2 is what 2 holds"),
        ([version(1), version(2), version(3, restores=1)], 1, "1 is what 3 holds"),
        ([version(1, parts=("query_tower",)), version(2)], None, "1 has no index: servers would mix the two"),
    ],
)
def test_impossible_rollbacks_are_explained(known: list[Manifest], to: int | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        rollback_source(known, to)


@given(st.lists(st.one_of(st.just(None), st.integers(0, 30)), min_size=1, max_size=30))
def test_versions_in_force_are_distinct_ordered_and_end_with_the_live_one(steps: list[int | None]) -> None:
    known: list[Manifest] = []
    for number, to in enumerate(steps, 1):  # a push, or a rollback to one of those that are there
        restores = known[to % len(known)].content if to is not None and known else None
        before = known
        known = [*known, version(number, restores)]
        contents = [each.content for each in in_force(known)]
        assert contents == sorted(set(contents))
        assert in_force(known)[-1] == known[-1]
        # A version that was in force still is, or was rolled back just now.
        taken = [each.content for each in withdrawn_by(known[-1], before)] if restores is not None else []
        assert {each.content for each in in_force(before)} - set(taken) <= set(contents)
        assert not set(taken) & set(contents)
