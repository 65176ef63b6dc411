import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluator import expectation


@pytest.mark.parametrize(
    ("above", "tied", "k", "expected"), [(0, 0, 1, 1.0), (9, 0, 10, 1.0), (10, 0, 10, 0.0), (8, 3, 10, 0.5)]
)
def test_hit_probability(above: int, tied: int, k: int, expected: float) -> None:
    # 8 above and 4 items (itself and 3) on places 9 to 12: two of the four places are among the first ten.
    assert expectation.hit_probability(above, tied, k) == expected


def test_gains_worked_out_by_hand() -> None:
    # Second place of none tied: 1/2, and 1 / log2(3) = .63093. One above and one tied: places 2 and 3, so (1/2 + 1/3) / 2, and
    # (.63093 + 1 / log2(4)) / 2 = .56546; with k = 2 only the second place gains.
    assert expectation.reciprocal_rank(1, 0) == 0.5
    assert expectation.reciprocal_rank(1, 1) == pytest.approx(5 / 12)
    assert expectation.discounted_gain(1, 0, 2) == pytest.approx(0.63093, abs=1e-5)
    assert expectation.discounted_gain(1, 1, 3) == pytest.approx(0.56546, abs=1e-5)
    assert expectation.discounted_gain(1, 1, 2) == pytest.approx(0.63093 / 2, abs=1e-5)
    assert expectation.ideal_gain(2, 10) == pytest.approx(1.63093, abs=1e-5)
    assert expectation.ideal_gain(5, 1) == 1.0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_each_is_the_mean_over_the_places(above: int, tied: int, k: int) -> None:
    places = np.arange(above + 1, above + tied + 2)
    assert expectation.hit_probability(above, tied, k) == pytest.approx((places <= k).mean())
    assert expectation.reciprocal_rank(above, tied) == pytest.approx((1 / places).mean())
    gains = np.where(places <= k, 1 / np.log2(places + 1), 0.0)
    assert expectation.discounted_gain(above, tied, k) == pytest.approx(gains.mean())


def test_arrays_and_a_million_ties() -> None:
    above, tied = np.array([0, 7]), np.array([999_999, 0])
    assert expectation.hit_probability(above, tied, 100).tolist() == [1e-4, 0.0 + 1.0]
    # The harmonic number of a million is 14.392726722865.
    assert expectation.reciprocal_rank(above, tied) == pytest.approx([14.392726722865e-6, 1 / 8])
