"""What it takes to arm, and that nothing is commanded before."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qvla_ros.control import rotation
from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError


def test_nothing_is_commanded_before_it_is_armed_nor_before_there_is_a_plan(make_rig: Any) -> None:
    rig = make_rig()
    assert rig.plan() is None
    rig.run(0.1)
    rig.arm()
    rig.run(0.1)
    assert rig.commands == []
    rig.plan()
    rig.tick()
    assert len(rig.commands) == 1


def test_arming_needs_a_fresh_state_a_fresh_look_and_the_deadman(make_rig: Any) -> None:
    rig = make_rig(deadman_timeout_s=0.3)
    controller = rig.controller
    with pytest.raises(QvlaError, match="observation"):
        controller.arm(rig.start, rig.ros_ns)
    rig.tick()
    for state in (None, replace(rig.start, linear=np.full(3, np.nan))):
        with pytest.raises(QvlaError, match="measured state"):
            controller.arm(state, rig.ros_ns)
    with pytest.raises(QvlaError, match="axes"):
        controller.arm(Setpoint(np.zeros(7)), rig.ros_ns)
    with pytest.raises(QvlaError, match="deadman"):
        controller.arm(rig.start, rig.ros_ns)
    controller.feed_deadman(True, rig.steady_s)
    controller.arm(rig.start, rig.ros_ns)
    assert controller.armed


def test_a_state_of_other_axes_is_refused_though_its_orientation_fits(make_rig: Any) -> None:
    rig = make_rig()
    rig.tick()
    fewer = replace(rig.start, linear=rig.start.linear[:2])
    with pytest.raises(QvlaError, match="2 axes"):
        rig.controller.arm(fewer, rig.ros_ns)
    assert not rig.controller.armed


def test_a_state_without_an_orientation_is_refused_though_its_axes_fit(make_rig: Any) -> None:
    rig = make_rig()
    rig.tick()
    place = replace(rig.start, quaternion_xyzw=None)
    with pytest.raises(QvlaError, match="orientation: False"):
        rig.controller.arm(place, rig.ros_ns)
    assert not rig.controller.armed


def test_a_deadman_that_fell_silent_cannot_be_armed_with(make_rig: Any) -> None:
    rig = make_rig(deadman_timeout_s=0.3)
    rig.tick()
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.run(0.5)
    with pytest.raises(QvlaError, match="the deadman is not held"):
        rig.arm()
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.arm()
    assert rig.controller.armed


def test_armed_again_it_starts_from_where_the_robot_is(make_rig: Any) -> None:
    rig = make_rig().moving()
    rig.controller.disarm()
    with pytest.raises(QvlaError, match="still braking"):
        rig.controller.arm(rig.start, rig.ros_ns)
    rig.tick()
    rig.measured = rig.start
    rig.run(0.3)
    before_ns = rig.ros_ns
    rig.arm()
    assert (
        rig.controller.set_chunk(
            PlannedChunk(before_ns, rig.step_dt_s, np.ones((rig.steps, 7))), rig.ros_ns
        )
        is None
    )
    assert rig.plan() == 0
    rig.tick()
    np.testing.assert_allclose(rig.commands[-1].linear, rig.start.linear + [0.01, 0.0, 0.0])


def test_settings_without_a_limit_are_refused(make_rig: Any) -> None:
    for name in (
        "period_s",
        "max_image_age_s",
        "inference_timeout_s",
        "max_command_age_s",
        "max_clock_jump_s",
    ):
        for value in (0.0, -1.0, math.nan):
            with pytest.raises(QvlaError, match=name):
                replace(make_rig.settings, **{name: value})
    with pytest.raises(QvlaError, match="deadman_timeout_s"):
        replace(make_rig.settings, deadman_timeout_s=-1.0)


def test_an_arm_outside_the_box_is_not_armed(make_rig: Any) -> None:
    limits = motion_limits(3, linear_low=[-1.0, -1.0, 0.02], linear_high=1.0)
    rig = make_rig(limits=limits)
    for height in (0.0179, 1.0021):
        rig.measured = replace(rig.start, linear=np.array([0.0, 0.0, height]))
        rig.run(0.6)
        with pytest.raises(QvlaError, match=rf"{height:.6g} on axis 2; expected 0.02 to 1,"):
            rig.arm()
    rig.measured = replace(rig.start, linear=np.array([0.0, 0.0, 0.02]))
    rig.run(0.6)
    rig.arm()
    assert rig.controller.armed


def test_an_arm_at_a_wall_is_armed_whatever_its_noise_and_commanded_inside(make_rig: Any) -> None:
    limits = motion_limits(3, linear_low=[-1.0, -1.0, 0.02], linear_high=1.0)
    rig = make_rig(limits=limits)
    rig.measured = replace(rig.start, linear=np.array([0.0, 0.0, 0.0185]))
    rig.run(0.6)
    rig.moving()
    assert rig.commands[0].linear[2] == 0.02


def test_an_arm_that_was_seen_for_less_than_it_must_rest_is_not_armed(make_rig: Any) -> None:
    rig = make_rig()
    spec = MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6)
    rig.controller = Controller(rig.settings, spec, motion_limits(3))
    for seconds in (0.0, 0.23):
        rig.run(seconds)
        with pytest.raises(QvlaError, match="states for 0.*an arm at rest for 0.25 s"):
            rig.arm()
    rig.run(0.02)
    rig.arm()
    assert rig.controller.armed


def test_an_arm_that_moves_between_states_that_come_slowly_is_not_armed(make_rig: Any) -> None:
    rig = make_rig()
    for _ in range(3):
        rig.measured = replace(rig.measured, linear=rig.measured.linear + 0.08)  # 0.25 m/s
        rig.tick(0.33)
    with pytest.raises(QvlaError, match="moved by 0.08 m"):
        rig.controller.arm(rig.measured, rig.ros_ns)


def test_a_slip_before_simulated_time_was_set_back_keeps_from_arming_for_no_longer_than_any(
    make_rig: Any,
) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_velocity=0.25), use_sim_time=True)
    rig.run(0.3)
    rig.measured = replace(rig.start, linear=rig.start.linear + 0.5)
    rig.tick()
    rig.tick(ros_seconds=-1000.0)
    rig.run(0.4)
    with pytest.raises(QvlaError, match="somewhere else at once"):
        rig.arm()
    rig.run(0.1)
    rig.arm()
    assert rig.controller.armed


def test_an_arm_that_moves_is_not_armed(make_rig: Any) -> None:
    rig = make_rig()
    rig.follows = False
    for _ in range(30):
        rig.measured = replace(rig.measured, linear=rig.measured.linear + 0.0003)  # 3 cm/s
        rig.tick()
    with pytest.raises(QvlaError, match="moved by 0.0075 m.*an arm at rest for 0.25 s"):
        rig.arm()
    rig.run(0.25)
    rig.arm()
    assert rig.controller.armed


def test_an_arm_that_turns_is_not_armed(make_rig: Any) -> None:
    rig = make_rig()
    for _ in range(30):
        turned = rotation.turn(rig.measured.quaternion_xyzw, [0.0, 0.0, 0.001])
        rig.measured = replace(rig.measured, quaternion_xyzw=turned)
        rig.tick()
    with pytest.raises(QvlaError, match="0.025 rad of turn"):
        rig.arm()


def test_a_state_that_jumped_is_not_armed_from_until_it_has_settled(make_rig: Any) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_velocity=0.25))
    rig.run(0.3)
    rig.measured = replace(rig.start, linear=rig.start.linear - [0.0, 0.0, 0.2])
    with pytest.raises(QvlaError, match="somewhere else at once"):  # as the node asks: untold yet
        rig.controller.arm(rig.measured, rig.ros_ns)
    rig.run(0.45)
    with pytest.raises(QvlaError, match="somewhere else at once"):
        rig.arm()
    rig.run(0.1)
    rig.arm()
    assert rig.controller.armed


def test_a_robot_that_must_say_that_it_is_ready_is_armed_after_that_and_stopped_when_it_is_not(
    make_rig: Any,
) -> None:
    rig = make_rig(needs_ready=True)
    rig.tick()
    for ready in (None, False):
        if ready is not None:
            rig.controller.feed_ready(ready, rig.steady_s)
        with pytest.raises(QvlaError, match="ready_topic"):
            rig.controller.arm(rig.measured, rig.ros_ns)
    rig.controller.feed_ready(True, rig.steady_s)
    rig.moving()
    rig.controller.feed_ready(False, rig.steady_s + 0.001)
    rig.controller.feed_ready(True, rig.steady_s + 0.002)
    decision = rig.tick()
    assert decision.stop is StopReason.robot_not_ready
    assert decision.passed_s == pytest.approx(rig.steady_s - rig.period_s + 0.001)
