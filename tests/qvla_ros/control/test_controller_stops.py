"""The robot is stopped for each reason, once and in time, until it is armed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.stop_reason import StopReason


def stale_input(rig: Any) -> None:
    rig.looks = False


def image_from_the_future(rig: Any) -> None:
    rig.looks = False
    rig.controller.feed_input(rig.ros_ns + 10**10)


def late_inference(rig: Any) -> None:
    rig.busy_s = rig.settings.inference_timeout_s + 1e-6


def nan_chunk(rig: Any) -> None:
    rig.plan(np.full((rig.steps, 7), np.nan))


def narrow_chunk(rig: Any) -> None:
    rig.plan(np.zeros((rig.steps, 6)))


def nan_measurement(rig: Any) -> None:
    rig.measured = replace(rig.start, quaternion_xyzw=np.array([0.0, 0.0, math.nan, 1.0]))
    rig.follows = False


def zero_quaternion(rig: Any) -> None:
    # as in a message that nobody filled in
    rig.measured = replace(rig.start, quaternion_xyzw=np.zeros(4))
    rig.follows = False


def no_measurement(rig: Any) -> None:
    rig.measured = None
    rig.follows = False


def stuck(rig: Any) -> None:
    rig.follows = False


def released(rig: Any) -> None:
    rig.controller.feed_deadman(False, rig.steady_s)


def ros_clock_jumps(rig: Any) -> None:
    rig.ros_ns += 10**9


def ros_clock_falls_back(rig: Any) -> None:
    rig.ros_ns -= 10**9


# ticks, of 0.01 s; an input may be 0.5 s old
AT_ONCE = 1
STALE = 50
CASES = [
    (stale_input, StopReason.stale_input, STALE),
    (image_from_the_future, StopReason.stale_input, AT_ONCE),
    (late_inference, StopReason.late_inference, AT_ONCE),
    (nan_chunk, StopReason.inference_error, AT_ONCE),
    (narrow_chunk, StopReason.inference_error, AT_ONCE),
    (nan_measurement, StopReason.bad_measurement, AT_ONCE),
    (zero_quaternion, StopReason.bad_measurement, AT_ONCE),
    (no_measurement, StopReason.bad_measurement, STALE),
    (stuck, StopReason.tracking_error, 5),  # the plan runs ahead by 1 m/s
    (released, StopReason.deadman_lost, AT_ONCE),
    (
        lambda rig: None,
        StopReason.deadman_lost,
        30 - 10,
    ),  # heard for the last time when it was armed
    (ros_clock_jumps, StopReason.clock_jump, AT_ONCE),
    (ros_clock_falls_back, StopReason.clock_jump, AT_ONCE),
    (lambda rig: rig.controller.disarm(), StopReason.disarmed, AT_ONCE),
    (
        lambda rig: rig.controller.disarm(StopReason.inference_error),
        StopReason.inference_error,
        AT_ONCE,
    ),
    (lambda rig: rig.controller.disarm(StopReason.cancelled), StopReason.cancelled, AT_ONCE),
    (lambda rig: rig.controller.disarm(StopReason.deactivated), StopReason.deactivated, AT_ONCE),
]


@pytest.mark.parametrize(("happens", "reason", "after_ticks"), CASES)
def test_every_stop_comes_in_time_once_and_disarms(
    make_rig: Any, happens: Any, reason: StopReason, after_ticks: int
) -> None:
    deadman_timeout_s = 0.3 if reason is StopReason.deadman_lost else 0.0
    rig = make_rig(max_linear_lead=0.05, deadman_timeout_s=deadman_timeout_s)
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.moving()
    happens(rig)
    last = rig.commands[-1]
    ticks = 0
    while not rig.stops and ticks < 100:
        last = rig.commands[-1]
        ticks = ticks + 1
        decision = rig.tick()
    assert rig.stops == [reason]
    assert after_ticks - 1.5 <= ticks <= after_ticks + 2.5
    assert not rig.controller.armed
    assert rig.controller.reason is reason
    if reason is not StopReason.tracking_error:
        assert decision.command is last
    assert rig.controller.motion is not None
    assert rig.controller.motion.setpoint is decision.command
    assert not rig.controller.motion.linear_velocity.any()
    sent = len(rig.commands)
    rig.measured = rig.start
    rig.looks = True
    rig.busy_s = 0.0
    rig.plan()
    rig.run(0.5)  # all is well again, and yet nothing moves before it is armed by hand
    assert rig.stops == [reason]
    assert len(rig.commands) == sent


@pytest.mark.parametrize("kind", ["delta_end_effector_pose", "joint_position"])
def test_a_plan_has_a_column_for_each_number_that_moves_the_robot(make_rig: Any, kind: str) -> None:
    """Three axes, and for poses a rotation vector and here a gripper."""
    columns = 7 if kind == "delta_end_effector_pose" else 3
    for given in (columns - 1, columns, columns + 1):
        rig = make_rig(kind)
        rig.arm()
        taken = rig.plan(np.zeros((rig.steps, given)))
        assert (taken == 0) is (given == columns)
        assert rig.controller.armed is (given == columns)


def test_a_plan_that_ends_is_waited_out_at_rest_and_then_stopped(make_rig: Any) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=100.0))
    rig.arm()
    rig.plan()
    rig.run(rig.steps * rig.step_dt_s + rig.settings.max_command_age_s)
    assert rig.stops == []
    last = [command.linear[0] for command in rig.commands[-9:]]
    assert last[3:] == [last[-1]] * 6
    rig.run(2 * rig.period_s)
    assert rig.stops == [StopReason.plan_exhausted]


def test_a_robot_that_was_told_nothing_is_not_told_to_stop(make_rig: Any) -> None:
    rig = make_rig()
    rig.arm()
    rig.controller.disarm(StopReason.cancelled)
    rig.run(0.1)
    assert rig.stops == []
    assert rig.commands == []
    assert rig.controller.reason is StopReason.cancelled


def test_none_commands_nothing_at_a_stop(make_rig: Any) -> None:
    rig = make_rig(stop="none").moving()
    rig.controller.disarm(StopReason.disarmed, 12.0)
    assert rig.tick() == Decision(None, StopReason.disarmed, 12.0)


def test_zero_is_a_motion_at_rest_that_leaves_the_gripper_alone(make_rig: Any) -> None:
    rig = make_rig(stop="zero").moving()
    rig.controller.disarm()
    decision = rig.tick()
    assert decision.stop is StopReason.disarmed
    assert not decision.motion.linear_velocity.any()
    assert not decision.motion.angular_velocity_rad_s.any()
    assert decision.motion.setpoint.gripper is None
    assert rig.tick() == Decision()


def test_after_a_tracking_error_it_holds_where_it_is_and_keeps_its_grip(make_rig: Any) -> None:
    rig = make_rig(max_linear_lead=0.02).moving()
    rig.follows = False
    blocked = rig.measured = replace(rig.commands[-1], gripper=0.4)
    while not rig.stops:
        decision = rig.tick()
    assert decision.command is not None
    assert decision.command.linear is blocked.linear
    assert decision.command.gripper == 0.0


@pytest.mark.parametrize(
    ("sim_time", "ros_seconds", "stops"),
    [
        (False, 0.01 + 0.45, False),
        (False, 0.01 + 0.55, True),
        (False, 0.01 - 0.55, True),
        (True, 0.0, False),  # paused
        (True, 0.45, False),  # fast
        (True, 0.55, True),
        (True, -1e-9, True),
    ],
)
def test_a_clock_jump_is_one_only_against_the_right_clock(
    make_rig: Any, sim_time: bool, ros_seconds: float, stops: bool
) -> None:
    rig = make_rig(use_sim_time=sim_time, max_clock_jump_s=0.5).moving()
    rig.tick(rig.period_s, ros_seconds)
    assert rig.stops == ([StopReason.clock_jump] if stops else [])
