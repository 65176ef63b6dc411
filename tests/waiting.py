"""Waits for what takes as long as the machine does: a test fails only where something never comes."""

import time
from collections.abc import Callable

PATIENCE = 900.0  # seconds; one for all, far above what the slowest machine with the most beside it has needed


def wait_for(condition: Callable[[], object], what: str = "what the test waits for", pause: float = 0.02) -> None:
    """Ask until the answer is true.

    Args:
        condition: is asked every `pause` seconds.
        what: did not come, if it does not.

    Raises:
        TimeoutError: it has not come within PATIENCE.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {PATIENCE:.0f} s")
        time.sleep(pause)
