"""Gives requests precedence over the loading of a version.

TensorFlow loads a SavedModel largely in Python, and a request takes Python's lock some ten times, each time behind the
loading thread. CPython has no priorities for its lock, so the loading thread rests by itself while requests run.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WORK_SECONDS = 0.002
REST_SECONDS = 0.006  # a load takes four times as long under constant load, some seconds


@contextmanager
def requests_first(running: Callable[[], int]) -> Iterator[None]:
    """Let the current thread rest after each `WORK_SECONDS` of work while requests run.

    It rests where it calls or leaves a function, by the hook that Python has for profilers. A long operation of TensorFlow is not
    interrupted; it does not hold Python's lock.

    Args:
        running: returns the number of running requests.
    """
    due = time.perf_counter() + WORK_SECONDS

    def rest(_frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal due
        if time.perf_counter() < due:
            return
        if running():
            time.sleep(REST_SECONDS)
        due = time.perf_counter() + WORK_SECONDS

    before = sys.getprofile()
    sys.setprofile(rest)
    try:
        yield
    finally:
        sys.setprofile(before)
