"""Intervals over users: as wide as the users differ, however many interactions each has."""

import numpy as np
import pytest

from benchmarks.intervals import groups_of, interval


def test_interactions_of_one_user_are_not_independent() -> None:
    # 64 users in two kinds, who find everything or nothing. A hundred interactions each say nothing more than one.
    users = [b"u%d" % number for number in range(64)]
    values = np.arange(64, dtype=np.float64) % 2.0
    once = interval(values, groups_of(users))
    often = interval(np.repeat(values, 100), groups_of(np.repeat(np.array(users, object), 100)))
    assert once.value == often.value == 0.5
    assert often == pytest.approx(once)
    # The mean of 64 fair coins has a deviation of 1/16; with some thirty groups 1.96 deviations are about 2.04.
    assert 0.06 < once.upper - once.value < 0.2


def test_a_difference_on_the_same_interactions_may_have_no_width_where_each_has_one() -> None:
    users = groups_of(b"u%d" % number for number in range(64))
    values = np.arange(64) % 2.0
    lead = interval(values - (values - 0.25), users)
    assert lead == pytest.approx((0.25, 0.25, 0.25))
