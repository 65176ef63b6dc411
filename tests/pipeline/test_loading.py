"""Imports that stay until the process ends."""

import gc
from collections.abc import Iterator

import pytest

from pipeline.loading import loading


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.freeze()


def test_what_was_loaded_is_not_searched_for_garbage() -> None:
    with loading():
        assert not gc.isenabled()
        loaded: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(loaded)


def test_what_cannot_be_loaded_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()


def test_a_later_day_of_a_backfill_keeps_no_garbage_of_the_day_before() -> None:
    """Regression: every day froze the cycles of the one before, for good."""
    with loading():
        pass
    frozen = gc.get_freeze_count()
    cycle: list[object] = []
    cycle.append(cycle)
    with loading():
        assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
