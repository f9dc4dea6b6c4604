"""Motion that is sent ahead of its time: what each message holds while it moves and when it stops.

How well it moves is judged in tests/qvla_ros/testing/test_trajectory_drive.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qvla_ros.control.controller import Controller
from qvla_ros.control.course import JOIN_S, Trajectory
from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason

LIMITS = motion_limits(3, -1.0, 1.0, max_linear_velocity=0.5, max_linear_acceleration=2.0)
AHEAD_S = 0.06


@pytest.fixture
def moving(make_rig: Any) -> Any:
    """A rig whose joints move at full speed towards 0.9 rad."""
    settings = {"max_linear_lead": 0.05, "max_image_age_s": 10.0, "max_command_age_s": 10.0}
    rig = make_rig("joint_position", LIMITS, look_ahead_s=AHEAD_S, **settings)
    rig.follows = False
    rig.arm()
    rig.plan(np.full((40, 3), 0.9))
    for _ in range(round((JOIN_S + 0.5) / rig.period_s)):
        rig.tick()
        rig.measured = Setpoint(now(rig)) if rig.steady_s > 1000.1 else rig.measured
    return rig


def block(rig: Any) -> np.ndarray:
    """Holds the joints where they are until the controller stops; returns where that is."""
    rig.measured = Setpoint(now(rig))
    while rig.controller.armed:
        rig.tick()
    return rig.measured.linear


def now(rig: Any) -> np.ndarray:
    """Where the joints are to be at this moment."""
    return due(rig.controller, rig.steady_s)


def due(controller: Controller, robot_s: float) -> np.ndarray:
    assert controller._course is not None
    return controller._course.at(robot_s)[0]


def sent(decision: Decision) -> Trajectory:
    assert decision.trajectory is not None
    return decision.trajectory


def test_a_message_holds_the_way_to_look_ahead_and_to_rest(moving: Any) -> None:
    decision = moving.tick()
    way = sent(decision)
    assert decision.motion is not None
    assert way.times_s[0] == pytest.approx(-0.01)
    assert way.velocities[0][0] == pytest.approx(0.5)
    rests_s = way.times_s[-1]
    assert rests_s == pytest.approx(AHEAD_S + 0.5 / 2.0, abs=0.01)
    assert (np.diff(way.positions[:, 0]) > 0.0).all()


def test_where_the_joints_are_to_be_now_is_compared_with_where_they_are(moving: Any) -> None:
    """Not where they are to be when what was sent has been carried out."""
    blocked = block(moving)
    lead = now(moving) - blocked
    assert lead.max() == pytest.approx(0.05 + 0.5 * 0.5 * moving.period_s, abs=0.6 * 0.005)
    assert moving.stops == [StopReason.tracking_error]


def test_a_stop_is_one_message_and_is_over_when_the_joints_are_at_rest(moving: Any) -> None:
    moving.controller.disarm(StopReason.disarmed)
    stop = moving.tick()
    assert stop.stop is StopReason.disarmed
    way = sent(stop)
    rests_s = 0.5 * AHEAD_S + 0.5 / (2 * 2.0)  # braked by twice the limit on acceleration
    assert way.times_s[-1] == pytest.approx(rests_s, abs=1e-6)
    waited = 0
    while moving.controller.is_stopping:
        assert moving.tick().motion is None
        waited += 1
    assert waited == pytest.approx(way.times_s[-1] / 0.01, abs=2)
    np.testing.assert_allclose(now(moving), way.positions[-1])


def test_after_a_tracking_error_the_joints_brake_and_then_go_to_where_they_are(
    moving: Any,
) -> None:
    place = block(moving)
    positions = [now(moving)]
    while moving.controller.is_stopping:
        moving.tick()
        positions.append(now(moving))
    for _ in range(10):
        moving.tick()
        positions.append(now(moving))
    velocities = np.diff(positions, axis=0) / moving.period_s
    assert np.abs(velocities).max() <= 0.5 + 1e-6
    assert np.abs(np.diff(velocities, axis=0)).max() / moving.period_s <= 2 * 2.0 + 1e-3
    np.testing.assert_allclose(positions[-1], place, atol=1e-6)


def test_a_stop_that_no_tick_follows_is_over_with_its_message(moving: Any) -> None:
    moving.controller.disarm(StopReason.shutdown)
    moving.controller.stop_at_once()
    np.testing.assert_array_equal(sent(moving.tick()).velocities[-1], 0.0)
    assert not moving.controller.is_stopping


def test_ticks_in_a_burst_send_nothing_and_late_ones_send_all_that_is_due(moving: Any) -> None:
    assert moving.tick(0.001).motion is None
    before = now(moving)
    late = sent(moving.tick(0.03))
    assert late.times_s[-1] == pytest.approx(AHEAD_S + 0.5 / 2.0, abs=0.01)
    assert now(moving)[0] - before[0] == pytest.approx(0.03 * 0.5)


def test_a_new_plan_enters_where_nothing_is_planned_yet(moving: Any) -> None:
    before = due(moving.controller, moving.steady_s + 0.05)
    skipped = moving.plan(np.full((8, 3), -0.9))
    assert skipped == 2  # of 0.05 s each, for 0.06 s
    moving.tick()
    np.testing.assert_allclose(due(moving.controller, moving.steady_s + 0.04), before)


def test_on_simulated_time_all_that_the_clock_has_moved_on_by_is_planned_and_a_standing_one_ends(
    make_rig: Any,
) -> None:
    rig = make_rig("joint_position", LIMITS, look_ahead_s=AHEAD_S, use_sim_time=True)
    rig.follows = False
    rig.arm()
    rig.plan(np.full((40, 3), 0.9))
    robot_s = 1e-9 * rig.ros_ns
    for _ in range(20):
        robot_s += 0.05
        rig.tick(0.02, 0.05)
        rig.measured = Setpoint(due(rig.controller, 1e-9 * rig.ros_ns))
    course = [due(rig.controller, robot_s + 0.01 * each)[0] for each in range(-1, 6)]
    np.testing.assert_allclose(np.diff(course), 0.5 * 0.01, atol=1e-6)  # full speed, no gaps
    rig.measured = None  # the robot stands still with its clock
    assert rig.tick(0.02, 0.0).motion is None
    rig.controller.disarm(StopReason.disarmed)
    stop = rig.tick(0.02, 0.0)
    assert stop.stop is StopReason.disarmed
    for _ in range(25):
        assert rig.tick(0.01, 0.0).motion is None
    assert not rig.controller.is_stopping


@pytest.mark.parametrize("jump_s", [-500.0, -20.0, -0.3, 3.0])
def test_a_simulated_clock_that_is_set_stops_the_joints_where_they_are(
    make_rig: Any, jump_s: float
) -> None:
    rig = make_rig("joint_position", LIMITS, look_ahead_s=AHEAD_S, use_sim_time=True)
    rig.follows = False
    rig.arm()
    rig.plan(np.full((40, 3), 0.9))
    for _ in range(20):
        rig.tick(0.02, 0.05)
        rig.measured = Setpoint(due(rig.controller, 1e-9 * rig.ros_ns))
    before = due(rig.controller, 1e-9 * rig.ros_ns)
    decision = rig.tick(0.02, jump_s)
    assert decision.stop is StopReason.clock_jump
    way = sent(decision)
    assert (np.diff(way.times_s) > 0.0).all()
    assert 0.0 < way.times_s[-1] < 0.5
    np.testing.assert_allclose(
        way.positions, np.broadcast_to(before, way.positions.shape), atol=0.1
    )
    for _ in range(60):
        rig.tick(0.02, 0.02)
    assert not rig.controller.is_stopping
