"""The paper's simulation in small: what the benchmark at full length reports must already show after 3,000 steps."""

from itertools import islice

import numpy as np
import pytest

from benchmarks import frequency
from benchmarks.frequency import BATCH, CHUNK, Ours, Printed


def error_after(steps: int, estimator: Ours | Printed) -> float:
    chunks = list(islice(frequency.stream(0, frequency.STEPS), steps // CHUNK))
    for batches, _ in chunks:
        estimator.count(batches)
    shares = chunks[-1][1]
    return float(np.abs(estimator.estimate() - BATCH * shares).sum() / (2 * BATCH))


def test_four_small_tables_beat_a_large_one_and_reach_the_papers_error() -> None:
    one, four = error_after(3000, Ours(1, 0.01, seed=0)), error_after(3000, Ours(4, 0.01, seed=0))
    # Colliding items alone cost one table of 5,000 rows 0.086 on average.
    assert 0.08 < one < 0.14
    assert four < 0.056


def test_a_rare_item_does_not_wait_for_the_start_value_to_fade() -> None:
    ours, printed = error_after(3000, Ours(1, 0.001, seed=0)), error_after(3000, Printed(1, 0.001, seed=0))
    assert ours < 0.14
    assert printed == pytest.approx(0.45, abs=0.02)  # 0.42 after 5,000
