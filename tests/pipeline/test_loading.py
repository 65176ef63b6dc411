"""Imports that stay until the process ends."""

import gc

import pytest

from pipeline.loading import loading


def test_what_was_loaded_is_not_searched_for_garbage() -> None:
    before = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
        loaded: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(loaded)


def test_what_cannot_be_loaded_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
