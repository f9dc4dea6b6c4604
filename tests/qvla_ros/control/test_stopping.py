"""A stop comes to rest inside the box and within every limit, from any motion within the limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control import rotation
from qvla_ros.control.limits import motion_limits, stop_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import limit_motion
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.stopping import Stop, advance_stop, slowed

DT_S = 0.02
BOX_M = 0.3
LIMITS = motion_limits(3, -BOX_M, BOX_M, 0.02, 0.6, 2.0, 0.05, 1.5, 6.0)
BRAKING = stop_limits(LIMITS)
PLACES = st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3).map(np.array)
TURNS = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3).map(rotation.from_rotation_vector)
TARGETS = st.builds(lambda place, turn: Setpoint(place, turn, 0.5), PLACES, TURNS)


def all_of(stop: Stop, motion: MotionState) -> list[MotionState]:
    """The last command, then all those of the stop."""
    motions = [motion]
    left: Stop | None = stop
    while left is not None:
        motion, left = advance_stop(left, motion, BRAKING, LIMITS, DT_S)
        motions.append(motion)
        assert len(motions) < 1000
    return motions


@settings(max_examples=60, deadline=None)
@given(st.lists(TARGETS, min_size=1, max_size=3), st.integers(1, 20), st.none() | TARGETS)
def test_from_any_motion_a_stop_keeps_every_limit_and_ends_at_rest(
    targets: list[Setpoint], ticks: int, yields_to: Setpoint | None
) -> None:
    motion = at_rest(Setpoint(np.zeros(3), rotation.IDENTITY, 0.5))
    for target in targets:
        for _ in range(ticks):
            motion, _ = limit_motion(target, motion, LIMITS, DT_S)
    motions = all_of(Stop(StopReason.disarmed, 0.0, yields_to), motion)
    for before, now in pairwise(motions):
        assert (np.abs(now.setpoint.linear) <= BOX_M).all()
        assert (np.abs(now.setpoint.linear - before.setpoint.linear) <= 0.6 * DT_S).all()
        change = np.abs(now.linear_velocity - before.linear_velocity)
        assert (change <= BRAKING.max_linear_acceleration * DT_S + 1e-12).all()
        turn = now.angular_velocity_rad_s - before.angular_velocity_rad_s
        most = BRAKING.max_angular_acceleration_rad_s2 * DT_S
        assert np.linalg.norm(turn) <= most + 1e-9
        assert now.setpoint.gripper == 0.5
    assert not motions[-1].linear_velocity.any()
    assert not motions[-1].angular_velocity_rad_s.any()
    if yields_to is not None:
        inside = np.clip(yields_to.linear, -BOX_M, BOX_M)
        np.testing.assert_array_equal(motions[-1].setpoint.linear, inside)
        assert yields_to.quaternion_xyzw is not None
        np.testing.assert_allclose(
            rotation.between(motions[-1].setpoint.quaternion_xyzw, yields_to.quaternion_xyzw),
            0.0,
            atol=1e-9,
        )


def test_what_was_not_commanded_is_taken_as_braked() -> None:
    motion = at_rest(Setpoint(np.zeros(3), rotation.IDENTITY))
    motion = replace(
        motion,
        linear_velocity=np.array([0.5, -0.5, 0.1]),
        angular_velocity_rad_s=np.array([0.0, 0.6, 0.8]),
    )
    left = slowed(motion, BRAKING, 0.05)  # 4 m/s^2 and 12 rad/s^2
    np.testing.assert_allclose(left.linear_velocity, [0.3, -0.3, 0.0])
    np.testing.assert_allclose(left.angular_velocity_rad_s, [0.0, 0.24, 0.32])
    assert left.setpoint is motion.setpoint
    rest = slowed(motion, BRAKING, 1.0)
    assert not rest.linear_velocity.any()
    assert not rest.angular_velocity_rad_s.any()
    still = at_rest(motion.setpoint)
    assert not slowed(still, stop_limits(motion_limits(3)), 0.1).angular_velocity_rad_s.any()


def test_it_yields_only_once_it_is_at_rest() -> None:
    fast = at_rest(Setpoint(np.zeros(1)))
    fast = replace(fast, linear_velocity=np.array([0.6]))
    stop = Stop(StopReason.tracking_error, 0.0, Setpoint(np.array([-0.1])))
    speeds = [motion.linear_velocity[0] for motion in all_of(stop, fast)]
    at_rest_at = speeds.index(0.0)
    assert min(speeds[:at_rest_at]) > 0.0
    assert max(speeds[at_rest_at:]) <= 0.0
    np.testing.assert_allclose(-np.diff(speeds[: at_rest_at + 1])[:-1], 4.0 * DT_S)
