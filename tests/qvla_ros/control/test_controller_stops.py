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
from qvla_ros.errors import QvlaError


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
    assert decision.command is last  # without a limit on deceleration: at rest at once
    while rig.controller.is_stopping:
        rig.tick()
    assert rig.controller.motion is not None
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


ACCELERATION = 50.0  # m/s^2; a stop brakes with twice as much by default
FAST = motion_limits(
    3,
    linear_low=[-5.0, -5.0, -5.0],
    linear_high=[5.0, 5.0, 5.0],
    max_linear_acceleration=ACCELERATION,
    max_angular_acceleration_rad_s2=200.0,
)


def velocities(rig: Any) -> Any:
    """Of all commands of the rig, m/s, one row a command."""
    places = [rig.start.linear, *(command.linear for command in rig.commands)]
    return np.diff(places, axis=0) / rig.period_s


@pytest.mark.parametrize(
    "reason", [reason for reason in StopReason if reason is not StopReason.tracking_error]
)
def test_every_stop_brakes_within_its_deceleration_from_the_last_command(
    make_rig: Any, reason: StopReason
) -> None:
    rig = make_rig(limits=FAST)
    rig.arm()
    rig.plan(np.tile([4.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0], (40, 1)))
    rig.run(0.2)
    sent = len(rig.commands)
    before = velocities(rig)[-1, 0]
    assert before == pytest.approx(4.0)
    rig.measured = replace(rig.start, linear=np.full(3, 7.0))  # which a stop does not look at
    rig.follows = False
    rig.controller.disarm(reason)
    first = rig.tick()
    assert first.stop is reason
    assert first.command is not None  # the first command of the stop goes out in its tick
    while rig.controller.is_stopping:
        assert rig.tick().stop is None
    slower = velocities(rig)[sent:, 0]
    np.testing.assert_allclose(slower, [3.0, 2.0, 1.0, 0.0], atol=1e-9)
    assert rig.commands[-1] is rig.commands[-2]  # the last one holds
    assert rig.commands[-1].gripper == 0.0
    assert rig.tick() == Decision()


def test_a_stop_in_front_of_a_wall_stays_inside_the_box(make_rig: Any) -> None:
    walled = replace(FAST, linear_high=np.array([0.35, 5.0, 5.0]))
    for ticks in range(1, 60, 4):
        rig = make_rig(limits=walled)
        rig.arm()
        rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
        rig.run(ticks * rig.period_s)
        rig.controller.disarm()
        rig.run(0.1)
        assert not rig.controller.is_stopping
        assert max(command.linear[0] for command in rig.commands) <= 0.35
        changes = np.diff(velocities(rig)[:, 0])
        assert changes.min() >= -2.0 * ACCELERATION * rig.period_s - 1e-9


def test_a_stop_turns_on_no_faster_than_it_may(make_rig: Any) -> None:
    rig = make_rig(limits=FAST)
    rig.arm()
    rig.plan(np.tile([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0], (40, 1)))  # 14 rad/s
    rig.run(0.2)
    speeds = []
    rig.controller.disarm()
    while rig.controller.is_stopping:
        rig.tick()
        speeds.append(np.linalg.norm(rig.controller.motion.angular_velocity_rad_s))
    fastest = math.hypot(10.0, 10.0)
    expected = [fastest - 4.0 * (tick + 1) for tick in range(3)]
    np.testing.assert_allclose(speeds, [*expected, 0.0], atol=1e-9)


def test_nothing_is_armed_or_planned_while_it_brakes(make_rig: Any) -> None:
    rig = make_rig(limits=FAST)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.2)
    rig.controller.disarm(StopReason.finished)
    rig.tick()
    assert rig.controller.is_stopping
    with pytest.raises(QvlaError, match="finished, which is still braking"):
        rig.controller.arm(rig.measured, rig.ros_ns)
    assert rig.plan() is None
    rig.controller.disarm(StopReason.cancelled)  # no second stop
    rig.run(0.4)
    assert rig.stops == [StopReason.finished]
    rig.arm()
    assert rig.controller.armed


def test_ticks_in_a_burst_do_not_make_it_brake_harder(make_rig: Any) -> None:
    rig = make_rig(limits=FAST)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.2)
    rig.controller.disarm()
    assert rig.tick(0.001).command is not None  # the first is not waited for
    assert rig.tick(0.001) == Decision()
    assert rig.controller.is_stopping


def test_without_a_tick_to_come_a_stop_is_one_command(make_rig: Any) -> None:
    rig = make_rig(limits=FAST)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.2)
    rig.controller.disarm()
    rig.tick()
    last = rig.commands[-1]
    rig.controller.stop_at_once()
    assert rig.tick(0.0).command is last
    assert not rig.controller.is_stopping


def test_after_a_tracking_error_it_yields_to_where_the_robot_is_and_keeps_its_grip(
    make_rig: Any,
) -> None:
    limits = replace(FAST, max_linear_velocity=np.full(3, 2.0))
    rig = make_rig(limits=limits, max_linear_lead=0.1)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.1)
    rig.follows = False
    blocked = rig.measured = replace(rig.commands[-1], gripper=0.4)
    while not rig.stops:
        rig.tick()
    assert rig.stops == [StopReason.tracking_error]
    while rig.controller.is_stopping:
        rig.tick()
    np.testing.assert_array_equal(rig.commands[-1].linear, blocked.linear)
    assert rig.commands[-1].gripper == 0.0
    assert np.abs(velocities(rig)).max() <= 2.0 + 1e-9
    changes = np.diff(velocities(rig)[:, 0])
    assert np.abs(changes).max() <= 2.0 * ACCELERATION * rig.period_s + 1e-9
    backwards = changes[velocities(rig)[1:, 0] < 0.0]
    assert np.abs(backwards).max() <= ACCELERATION * rig.period_s + 1e-9


def test_it_yields_to_no_place_that_one_state_alone_tells_of(make_rig: Any) -> None:
    limits = replace(FAST, max_linear_velocity=np.full(3, 0.25))
    rig = make_rig(limits=limits, max_linear_lead=0.1)
    rig.arm()
    rig.plan(np.tile([0.1, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.1)
    rig.measured = None
    rig.follows = False
    rig.run(0.45)
    rig.measured = replace(rig.commands[-1], linear=rig.commands[-1].linear + [0.0, 0.3, 0.0])
    rig.tick()
    assert rig.stops == [StopReason.tracking_error]
    while rig.controller.is_stopping:
        rig.tick()
    assert rig.commands[-1].linear[1] == rig.start.linear[1]


def test_it_yields_no_further_than_the_box(make_rig: Any) -> None:
    limits = replace(FAST, linear_low=np.array([0.05, -5.0, -5.0]))
    rig = make_rig(limits=limits, max_linear_lead=0.1)
    rig.arm()
    rig.plan(np.tile([-1.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.02)
    rig.follows = False
    rig.measured = replace(rig.start, linear=rig.start.linear - [0.2, 0.0, 0.0])
    rig.run(0.3)
    assert rig.stops == [StopReason.tracking_error]
    assert rig.commands[-1].linear[0] == 0.05


@pytest.mark.parametrize("real_time_factor", [0.3, 1.0, 5.0])
def test_in_simulated_time_it_brakes_by_the_simulated_clock(
    make_rig: Any, real_time_factor: float
) -> None:
    rig = make_rig(limits=FAST, use_sim_time=True)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (200, 1)))
    simulated_s = real_time_factor * rig.period_s
    while rig.controller.motion.linear_velocity[0] < 3.99:
        rig.tick(rig.period_s, simulated_s)
    rig.controller.disarm()
    first_ns = rig.ros_ns
    count = 0
    while rig.controller.is_stopping:
        count = count + (rig.tick(rig.period_s, simulated_s).command is not None)
    braked_s = (rig.ros_ns - first_ns) * 1e-9
    assert braked_s == pytest.approx(4.0 / (2.0 * ACCELERATION), abs=1.5 * max(simulated_s, 0.01))
    assert count == (4 if real_time_factor <= 1.0 else 1)


def test_where_simulated_time_stands_still_a_stop_ends_at_once(make_rig: Any) -> None:
    rig = make_rig(limits=FAST, use_sim_time=True)
    rig.arm()
    rig.plan(np.tile([4.0, 0, 0, 0, 0, 0, 0.0], (40, 1)))
    rig.run(0.2)
    rig.controller.disarm()
    sent = len(rig.commands)
    for _ in range(100):
        rig.tick(rig.period_s, 0.0)
    assert not rig.controller.is_stopping
    assert len(rig.commands) - sent == 2  # the first, and the one that holds


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
