"""What a robot was sent adds up to where it should be, as far as a velocity is in force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control import rotation
from qvla_ros.control.motion import MotionState
from qvla_ros.control.sent_velocities import HELD_S, KEPT_S, SentVelocities
from qvla_ros.control.setpoint import Setpoint

POSE = Setpoint(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0]), 0.5)


def moving(linear: list[float], angular: list[float] | None = None) -> MotionState:
    return MotionState(POSE, np.array(linear), np.array(angular or [0.0, 0.0, 0.0]))


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=30), st.floats(0.0, 0.5))
def test_displacement_is_the_sum_over_the_time_asked_for(
    velocities: list[float], back_s: float
) -> None:
    sent = SentVelocities()
    for number, velocity in enumerate(velocities):
        sent.note(0.05 * number, moving([velocity, 0.0, 0.0]))
    end_s = 0.05 * len(velocities)
    fine = np.arange(end_s - back_s, end_s, 1e-4)[: round(back_s / 1e-4)]
    index = np.floor(fine / 0.05).astype(int)
    expected = 1e-4 * np.where(index >= 0, np.array(velocities)[np.maximum(index, 0)], 0.0).sum()
    moved = sent.displacement(end_s - back_s, end_s)
    assert moved[0] == pytest.approx(expected, abs=5e-4)
    assert moved[6] >= abs(moved[0]) - 1e-12


def test_a_robot_that_is_sent_no_more_is_taken_to_stop() -> None:
    sent = SentVelocities()
    sent.note(1.0, moving([0.0, 2.0, 0.0]))
    assert sent.displacement(0.0, 9.0)[1] == pytest.approx(2.0 * HELD_S)


def test_a_pose_is_predicted_by_what_was_sent_since() -> None:
    sent = SentVelocities()
    for number in range(10):
        sent.note(0.02 * number, moving([0.5, 0.0, 0.0], [0.0, 0.0, 1.0]))
    here = sent.predicted(POSE, 0.1, 0.2)
    np.testing.assert_allclose(here.linear, [1.05, 2.0, 3.0])
    assert POSE.quaternion_xyzw is not None
    assert here.quaternion_xyzw is not None
    turned = rotation.between(POSE.quaternion_xyzw, here.quaternion_xyzw)
    np.testing.assert_allclose(turned, [0.0, 0.0, 0.1], atol=1e-12)
    assert here.gripper == 0.5


def test_nothing_sent_moves_nothing() -> None:
    sent = SentVelocities()
    assert not sent.displacement(0.0, 10.0).any()
    sent.note(1.0, moving([1.0, 0.0, 0.0]))
    sent.clear()
    assert not sent.displacement(0.0, 10.0).any()


def test_what_is_older_than_can_be_asked_for_is_forgotten_and_the_rest_stays_right() -> None:
    sent = SentVelocities()
    for number in range(2000):
        sent.note(0.01 * number, moving([1.0, 0.0, 0.0]))
    assert len(sent._times_s) < 2.1 * KEPT_S / 0.01
    assert sent.displacement(20.0 - KEPT_S, 20.0)[0] == pytest.approx(KEPT_S)


def test_commands_that_come_slowly_are_in_force_until_the_next() -> None:
    sent = SentVelocities(period_s=0.25)
    sent.note(0.0, moving([1.0, 0.0, 0.0]))
    assert sent.displacement(0.0, 0.25)[0] == pytest.approx(0.25)
