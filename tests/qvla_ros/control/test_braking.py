"""The braking speed leaves just the room that coming to rest takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control.braking import approach_speed, braking_speed


@given(st.floats(1e-6, 10.0), st.floats(1e-4, 10.0), st.sampled_from([0.001, 0.01, 0.1]))
def test_braking_from_the_braking_speed_ends_at_the_wall(
    distance: float, change: float, dt_s: float
) -> None:
    speed = float(braking_speed(np.array(distance), change, dt_s))
    travelled = 0.0
    while speed > 0.0 and travelled <= distance * 1.01:
        travelled += speed * dt_s
        speed -= change
    assert travelled == pytest.approx(distance, rel=1e-9)


@given(st.floats(0.0, 10.0), st.floats(0.01, 10.0), st.floats(0.03, 1.0))
def test_a_late_robot_has_room_to_react_and_then_to_brake(
    distance: float, acceleration: float, reaction_s: float
) -> None:
    dt_s = 0.02
    speed = approach_speed(np.array([distance]), acceleration * dt_s, dt_s, reaction_s)[0]
    way = speed * reaction_s + speed**2 / (2.0 * acceleration)
    assert way == pytest.approx(distance, rel=1e-9, abs=1e-12)


def test_a_late_robot_comes_back_over_a_wall_in_its_own_time_and_without_a_wall_is_free() -> None:
    speeds = approach_speed(np.array([-0.1, 0.0, np.inf]), 0.02, 0.02, 0.2)
    np.testing.assert_allclose(speeds[:2], [-0.5, 0.0])
    assert speeds[2] > 1e70
