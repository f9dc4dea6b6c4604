"""Intervals cover as often as they promise, and percentiles of nothing are no numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.statistics import percentiles, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_intervals_equal_published_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998) 857-872, table I; the others from the
    # closed form.
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_rate_and_stays_in_the_unit_range(
    trials: int, data: st.DataObject
) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high


def test_no_trials_say_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_interval(3, 2)


def test_percentiles_interpolate_and_nothing_gives_nan() -> None:
    assert percentiles([1, 2, 3, 4, 5], (50, 100)) == (3.0, 5.0)
    assert all(math.isnan(value) for value in percentiles([]))
