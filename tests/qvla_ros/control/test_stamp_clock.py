"""Stamps follow ROS time, and no pause between two readings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control.stamp_clock import CLOSE_S, SLEW_S, StampClock

AHEAD_NS = 1_700_000_000 * 10**9
PERIOD_S = 0.01


def read(clock: StampClock, at_s: float, ahead_ns: float, first_s: float, second_s: float) -> int:
    """Reads the steady clock, ROS time `first_s` later, and the steady clock again."""
    ros_ns = round(1e9 * (at_s + first_s) + ahead_ns)
    return clock.stamp_ns(at_s, ros_ns, at_s + first_s + second_s)


@given(st.lists(st.tuples(st.floats(1e-6, 0.05), st.floats(1e-6, 0.05)), min_size=1, max_size=50))
def test_pauses_between_readings_do_not_reach_the_stamps(
    pauses: list[tuple[float, float]],
) -> None:
    clock = StampClock()
    read(clock, 100.0, AHEAD_NS, 5e-6, 5e-6)
    for number, (first_s, second_s) in enumerate(pauses):
        at_s = 100.0 + PERIOD_S * number
        stamp_ns = read(clock, at_s, AHEAD_NS, first_s, second_s)
        # what a pause too short to be told can move it by, a reading
        assert abs(stamp_ns - 1e9 * at_s - AHEAD_NS) <= 1e9 * SLEW_S * (number + 2) + 500
    assert abs(stamp_ns - 1e9 * at_s - AHEAD_NS) <= 0.5e9 * CLOSE_S + 1000


def test_a_clock_that_is_slewed_is_followed() -> None:
    clock = StampClock()
    for number in range(2000):
        at_s = 100.0 + PERIOD_S * number
        ahead_ns = AHEAD_NS + 1e9 * 100e-6 * PERIOD_S * number  # 100 ppm
        stamp_ns = read(clock, at_s, ahead_ns, 5e-6, 5e-6)
    assert abs(stamp_ns - 1e9 * at_s - ahead_ns) < 1e9 * SLEW_S


def test_a_clock_that_is_set_anew_is_taken_over_once_a_reading_can_be_believed() -> None:
    clock = StampClock()
    read(clock, 100.0, AHEAD_NS, 5e-6, 5e-6)
    set_ns = AHEAD_NS - 10**8
    stamp_ns = read(clock, 100.01, set_ns, 5e-6, 0.03)
    assert abs(stamp_ns - 100.01e9 - AHEAD_NS) < 1000
    stamp_ns = read(clock, 100.02, set_ns, 5e-6, 5e-6)
    assert abs(stamp_ns - 100.02e9 - set_ns) < 1000


def test_stamps_are_as_even_as_the_steady_clock() -> None:
    clock = StampClock()
    rng = np.random.default_rng(0)
    stamps = [
        read(clock, PERIOD_S * number, AHEAD_NS, *rng.exponential(3e-5, 2))
        for number in range(1000)
    ]
    assert np.abs(np.diff(stamps) - 1e9 * PERIOD_S).max() <= 1e9 * SLEW_S + 2000
