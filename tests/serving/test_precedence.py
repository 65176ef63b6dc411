"""Requests have precedence over the loading of a version."""

import sys
import time

import pytest

from serving import precedence
from serving.precedence import requests_first


def work(seconds: float) -> float:
    """Call functions for processor seconds of this thread; return the seconds of the clock that it took."""
    begun, end = time.perf_counter(), time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return time.perf_counter() - begun


def test_a_load_rests_while_requests_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "REST_SECONDS", 0.2)  # so long that no slow machine is taken for a rest
    monkeypatch.setattr(precedence, "WORK_SECONDS", 0.0)
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    running = iter([0, 2, 1])
    with requests_first(lambda: next(running, 0)):
        work(0.01)
    assert rests == [0.2, 0.2]  # beside two and one running request, and not beside none


def test_a_load_works_on_for_a_while_between_two_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WORK_SECONDS", 3600.0)
    with requests_first(lambda: pytest.fail("asked before its time")):
        work(0.01)


def test_the_hook_of_a_profiler_comes_back_also_behind_an_error() -> None:
    def profiler(*_: object) -> None: ...

    before = sys.getprofile()
    sys.setprofile(profiler)
    try:
        with pytest.raises(ValueError, match="a damaged model"), requests_first(lambda: 0):
            raise ValueError("a damaged model")
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(before)
