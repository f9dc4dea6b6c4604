"""When the robot is commanded and when it is stopped: each reason, once, in time, and never while disarmed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.controller import RATE, Controller, ControllerSettings, Decision, StopReason
from qvla_ros.control.limits import MotionLimits, motion_limits
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError

PERIOD_S, DT_S, K = 0.01, 0.05, 8
START = Setpoint(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]), 1.0)
DELTA = MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6)
JOINTS = MotionSpec("joint_position", 1.0, 1.0, None)
SETTINGS = ControllerSettings(PERIOD_S, max_input_age_s=0.5, max_inference_s=0.4, max_command_age_s=0.1)
FREE = motion_limits(3)


class Rig:
    """A controller, its clocks, and a robot that does as it is told; the deltas of its plans are all (1, 0, ... 0)."""

    def __init__(
        self, spec: MotionSpec = DELTA, limits: MotionLimits = FREE, blend_steps: int = 0, **settings: Any
    ) -> None:
        self.controller = Controller(replace(SETTINGS, **settings), spec, limits, blend_steps)
        self.steady_s, self.ros_ns = 1000.0, 10**18
        self.measured: Setpoint | None = START if spec.is_pose else Setpoint(START.linear)
        self.follows, self.looks = True, True
        self.busy_s = 0.0
        self.commands: list[Setpoint] = []
        self.stops: list[StopReason] = []

    def tick(self, seconds: float = PERIOD_S, ros_seconds: float | None = None) -> Decision:
        self.steady_s += seconds
        self.ros_ns += round((seconds if ros_seconds is None else ros_seconds) * 1e9)
        if self.looks:
            self.controller.feed_input(self.ros_ns)
        decision = self.controller.tick(self.ros_ns, self.steady_s, self.measured, self.busy_s)
        if decision.command is not None:
            self.commands.append(decision.command)
            self.measured = decision.command if self.follows else self.measured
        if decision.stop is not None:
            self.stops.append(decision.stop)
        return decision

    def plan(self, actions: Any = None, count: int = K) -> int | None:
        if actions is None:
            actions = np.tile([1.0, 0, 0, 0, 0, 0, 0.0], (count, 1))
        return self.controller.set_chunk(PlannedChunk(self.ros_ns, DT_S, np.asarray(actions, float)), self.ros_ns)

    def arm(self) -> None:
        self.tick()
        self.controller.arm(self.measured, self.ros_ns)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            self.tick()

    def moving(self) -> Rig:
        """Armed and a tenth of a second into a plan."""
        self.arm()
        self.plan(count=40)
        self.run(0.1)
        assert len(self.commands) == 10
        return self


def test_nothing_is_commanded_before_it_is_armed_nor_before_there_is_a_plan() -> None:
    rig = Rig()
    assert rig.plan() is None
    rig.run(0.1)
    rig.arm()
    rig.run(0.1)
    assert rig.commands == []
    rig.plan()
    rig.tick()
    assert len(rig.commands) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 0.004), min_size=50, max_size=50))
def test_deltas_add_up_and_late_wake_ups_do_not_reach_the_robot(lateness_s: list[float]) -> None:
    rig = Rig()
    rig.arm()
    rig.plan(np.tile([1.0, 0, -1.0, 0, 0, 0.2, 0.0], (K, 1)))
    last_s = 0.0
    for late_s in lateness_s:
        rig.tick(PERIOD_S + late_s - last_s)
        last_s = late_s
    np.testing.assert_allclose(rig.commands[-1].linear, START.linear + K * 0.05 * np.array([1.0, 0.0, -1.0]))
    turned = K * 0.5 * 0.2
    np.testing.assert_allclose(rig.commands[-1].quaternion_xyzw, [0, 0, math.sin(turned / 2), math.cos(turned / 2)])
    moved = np.diff([command.linear[0] for command in rig.commands])[: K * 5 - 2]
    np.testing.assert_allclose(moved, 0.05 / 5)
    assert rig.commands[0].gripper == 0.0


def test_an_absolute_plan_is_where_it_said_when_each_step_ends() -> None:
    rig = Rig(JOINTS)
    targets = np.random.default_rng(0).uniform(-1.0, 1.0, (K, 3))
    rig.arm()
    rig.plan(targets)
    rig.run(K * DT_S)
    np.testing.assert_allclose([command.linear for command in rig.commands[4::5]], targets, atol=1e-12)
    between = np.array([command.linear for command in rig.commands[4:10]])
    np.testing.assert_allclose(np.diff(between, axis=0), np.tile((targets[1] - targets[0]) / 5, (5, 1)), atol=1e-12)


def test_the_safety_chain_holds_and_counts_what_it_changed() -> None:
    rig = Rig(limits=motion_limits(3, max_linear_velocity=0.5)).moving()  # the plan wants 1 m/s
    np.testing.assert_allclose(np.diff([command.linear[0] for command in rig.commands]), 0.005)
    assert rig.controller.interventions["velocity"] == 10
    assert rig.controller.interventions["box"] == 0


def test_deltas_are_held_to_the_acceleration_and_to_nothing_else() -> None:
    """What an earlier delta was denied is not made up for, nor braked for."""
    rig = Rig(limits=motion_limits(3, max_linear_acceleration=5.0))
    rig.arm()
    rig.plan(np.outer([1.0, 0.27], [1.0, 0, 0, 0, 0, 0, 0]))
    rig.run(2 * DT_S)
    moved = np.diff([START.linear[0], *(command.linear[0] for command in rig.commands)])
    np.testing.assert_allclose(moved, 0.01 * np.array([0.05, 0.1, 0.15, 0.2, 0.25, *[0.27] * 5]))


def test_a_robot_that_takes_velocities_is_kept_in_the_box_by_where_it_is() -> None:
    rig = Rig(limits=motion_limits(3, linear_low=-1.0, linear_high=0.35), follow_measured=True)
    rig.follows = False
    rig.arm()
    rig.plan(count=40)
    velocities = []
    for _ in range(60):  # it goes at 0.9 of the velocity that it is told, from x = 0.1
        rig.tick()
        assert rig.controller.motion is not None
        velocities.append(rig.controller.motion.linear_velocity[0])
        assert rig.measured is not None
        rig.measured = replace(rig.measured, linear=rig.measured.linear + [0.9 * velocities[-1] * PERIOD_S, 0, 0])
    np.testing.assert_allclose(velocities[:25], 1.0)  # with its own sum, 0.35 would have been told after 25 ticks
    assert rig.measured.linear[0] == pytest.approx(0.35)
    assert rig.commands[-1].gripper == 0.0
    assert velocities[-1] == pytest.approx(0.0, abs=1e-9)


def stale_input(rig: Rig) -> None:
    rig.looks = False


def image_from_the_future(rig: Rig) -> None:
    rig.looks = False
    rig.controller.feed_input(rig.ros_ns + 10**10)


def late_inference(rig: Rig) -> None:
    rig.busy_s = SETTINGS.max_inference_s + 1e-6


def nan_chunk(rig: Rig) -> None:
    rig.plan(np.full((K, 7), np.nan))


def narrow_chunk(rig: Rig) -> None:
    rig.plan(np.zeros((K, 6)))


def nan_measurement(rig: Rig) -> None:
    rig.measured = replace(START, quaternion_xyzw=np.array([0.0, 0.0, math.nan, 1.0]))
    rig.follows = False


def zero_quaternion(rig: Rig) -> None:
    rig.measured = replace(START, quaternion_xyzw=np.zeros(4))  # as in a message that nobody filled in
    rig.follows = False


def no_measurement(rig: Rig) -> None:
    rig.measured, rig.follows = None, False


def stuck(rig: Rig) -> None:
    rig.follows = False


def released(rig: Rig) -> None:
    rig.controller.feed_deadman(False, rig.steady_s)


def ros_clock_jumps(rig: Rig) -> None:
    rig.ros_ns += 10**9


def ros_clock_falls_back(rig: Rig) -> None:
    rig.ros_ns -= 10**9


AT_ONCE, INPUT_S = PERIOD_S, SETTINGS.max_input_age_s
CASES = [
    (stale_input, StopReason.stale_input, INPUT_S),
    (image_from_the_future, StopReason.stale_input, AT_ONCE),
    (late_inference, StopReason.late_inference, AT_ONCE),
    (nan_chunk, StopReason.inference_error, AT_ONCE),
    (narrow_chunk, StopReason.inference_error, AT_ONCE),
    (nan_measurement, StopReason.bad_measurement, AT_ONCE),
    (zero_quaternion, StopReason.bad_measurement, AT_ONCE),
    (no_measurement, StopReason.bad_measurement, INPUT_S),
    (stuck, StopReason.tracking_error, 0.05),  # the plan runs ahead by 1 m/s
    (released, StopReason.deadman_lost, AT_ONCE),
    (lambda rig: None, StopReason.deadman_lost, 0.3 - 0.1),  # heard for the last time when it was armed
    (ros_clock_jumps, StopReason.clock_jump, AT_ONCE),
    (ros_clock_falls_back, StopReason.clock_jump, AT_ONCE),
    (lambda rig: rig.controller.disarm(), StopReason.disarmed, AT_ONCE),
    (lambda rig: rig.controller.fault(StopReason.inference_error), StopReason.inference_error, AT_ONCE),
    (lambda rig: rig.controller.disarm(StopReason.cancelled), StopReason.cancelled, AT_ONCE),
    (lambda rig: rig.controller.disarm(StopReason.deactivated), StopReason.deactivated, AT_ONCE),
]


@pytest.mark.parametrize(("happens", "reason", "after_s"), CASES)
def test_every_stop_comes_in_time_once_and_disarms(happens: Any, reason: StopReason, after_s: float) -> None:
    deadman_timeout_s = 0.3 if reason is StopReason.deadman_lost else 0.0
    rig = Rig(max_linear_lead=0.05, deadman_timeout_s=deadman_timeout_s)
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.moving()
    happens(rig)
    last, ticks = rig.commands[-1], 0
    while not rig.stops and ticks < 100:
        last, ticks = rig.commands[-1], ticks + 1
        decision = rig.tick()
    assert rig.stops == [reason]
    assert ticks * PERIOD_S <= after_s + 2.5 * PERIOD_S
    assert ticks * PERIOD_S >= after_s - 1.5 * PERIOD_S
    assert not rig.controller.armed
    assert rig.controller.reason is reason
    if reason is not StopReason.tracking_error:
        assert decision.command is last
    assert rig.controller.motion is not None
    assert rig.controller.motion.setpoint is decision.command
    assert not rig.controller.motion.linear_velocity.any()
    sent = len(rig.commands)
    rig.measured, rig.looks, rig.busy_s = START, True, 0.0
    rig.plan()
    rig.run(0.5)  # all is well again, and yet nothing moves before it is armed by hand
    assert rig.stops == [reason]
    assert len(rig.commands) == sent


def test_a_plan_that_ends_is_waited_out_at_rest_and_then_stopped() -> None:
    rig = Rig(limits=motion_limits(3, max_linear_acceleration=100.0))
    rig.arm()
    rig.plan()
    rig.run(K * DT_S + SETTINGS.max_command_age_s)
    assert rig.stops == []
    last = [command.linear[0] for command in rig.commands[-9:]]
    assert last[3:] == [last[-1]] * 6
    rig.run(2 * PERIOD_S)
    assert rig.stops == [StopReason.plan_exhausted]


def test_a_new_plan_in_time_goes_on_without_a_stop() -> None:
    rig = Rig(blend_steps=2)
    rig.arm()
    for _ in range(5):
        rig.plan()
        rig.run(0.2)
    assert rig.stops == []
    moved = np.diff([command.linear[0] for command in rig.commands])
    np.testing.assert_allclose(moved, 0.05 / 5)


def test_a_flush_brings_it_to_rest_and_refuses_looks_from_before() -> None:
    rig = Rig(limits=motion_limits(3, max_linear_acceleration=50.0)).moving()
    before_ns = rig.ros_ns - 1
    rig.controller.flush(rig.ros_ns)
    assert rig.controller.set_chunk(PlannedChunk(before_ns, DT_S, np.ones((K, 7))), rig.ros_ns) is None
    rig.run(0.05)
    moved = np.diff([command.linear[0] for command in rig.commands])
    np.testing.assert_allclose(moved[-5:], [0.005, 0.0, 0.0, 0.0, 0.0], atol=1e-12)  # 1 m/s, 0.5 m/s, rest
    assert rig.plan() == 0
    rig.run(0.05)
    assert rig.stops == []
    rig.controller.flush(rig.ros_ns)
    rig.run(SETTINGS.max_command_age_s + 2 * PERIOD_S)
    assert rig.stops == [StopReason.plan_exhausted]


def test_a_robot_that_was_told_nothing_is_not_told_to_stop() -> None:
    rig = Rig()
    rig.arm()
    rig.controller.disarm(StopReason.cancelled)
    rig.run(0.1)
    assert rig.stops == []
    assert rig.commands == []
    assert rig.controller.reason is StopReason.cancelled


@pytest.mark.parametrize("stop", ["zero", "none"])
def test_zero_and_none_hold_no_setpoint(stop: str) -> None:
    rig = Rig(stop=stop).moving()
    rig.controller.disarm()
    assert rig.tick() == Decision(None, StopReason.disarmed)


def test_after_a_tracking_error_it_holds_where_it_is_and_keeps_its_grip() -> None:
    rig = Rig(max_linear_lead=0.02).moving()
    rig.follows = False
    blocked = rig.measured = replace(rig.commands[-1], gripper=0.4)
    while not rig.stops:
        decision = rig.tick()
    assert decision.command is not None
    assert decision.command.linear is blocked.linear
    assert decision.command.gripper == 0.0


def test_armed_again_it_starts_from_where_the_robot_is() -> None:
    rig = Rig().moving()
    rig.controller.disarm()
    with pytest.raises(QvlaError, match="not yet sent"):
        rig.controller.arm(START, rig.ros_ns)
    rig.tick()
    rig.measured = START
    before_ns = rig.ros_ns
    rig.arm()
    assert rig.controller.set_chunk(PlannedChunk(before_ns, DT_S, np.ones((K, 7))), rig.ros_ns) is None
    assert rig.plan() == 0
    rig.tick()
    np.testing.assert_allclose(rig.commands[-1].linear, START.linear + [0.01, 0.0, 0.0])


def test_arming_needs_a_fresh_state_a_fresh_look_and_the_deadman() -> None:
    rig = Rig(deadman_timeout_s=0.3)
    controller = rig.controller
    with pytest.raises(QvlaError, match="observation"):
        controller.arm(START, rig.ros_ns)
    rig.tick()
    for state in (None, replace(START, linear=np.full(3, np.nan))):
        with pytest.raises(QvlaError, match="measured state"):
            controller.arm(state, rig.ros_ns)
    with pytest.raises(QvlaError, match="axes"):
        controller.arm(Setpoint(np.zeros(7)), rig.ros_ns)
    with pytest.raises(QvlaError, match="deadman"):
        controller.arm(START, rig.ros_ns)
    controller.feed_deadman(True, rig.steady_s)
    controller.arm(START, rig.ros_ns)
    assert controller.armed


def test_ticks_in_a_burst_are_not_passed_on() -> None:
    rig = Rig().moving()
    for _ in range(4):
        assert rig.tick(0.001) == Decision()
    assert rig.controller.interventions[RATE] == 4
    sent = len(rig.commands)
    for _ in range(1000):
        rig.tick(0.001)
    assert 100 <= len(rig.commands) - sent <= 102


def test_after_a_stall_the_lost_time_is_not_made_up_for() -> None:
    rig = Rig()
    rig.arm()
    rig.plan(np.outer(np.arange(K), [0.1, 0, 0, 0, 0, 0, 0]))
    rig.run(0.06)
    for stall_s, step in ((0.2, 5), (PERIOD_S, 5), (0.05, 6)):
        rig.tick(stall_s)
        moved = rig.commands[-1].linear[0] - rig.commands[-2].linear[0]
        np.testing.assert_allclose(moved, 0.001 * step)


@pytest.mark.parametrize(
    ("sim_time", "ros_seconds", "stops"),
    [
        (False, PERIOD_S + 0.45, False),
        (False, PERIOD_S + 0.55, True),
        (False, PERIOD_S - 0.55, True),
        (True, 0.0, False),  # paused
        (True, 0.45, False),  # fast
        (True, 0.55, True),
        (True, -1e-9, True),
    ],
)
def test_a_clock_jump_is_one_only_against_the_right_clock(sim_time: bool, ros_seconds: float, stops: bool) -> None:
    rig = Rig(sim_time=sim_time, max_clock_jump_s=0.5).moving()
    rig.tick(PERIOD_S, ros_seconds)
    assert rig.stops == ([StopReason.clock_jump] if stops else [])


def test_settings_without_a_limit_are_refused() -> None:
    for name in ("period_s", "max_input_age_s", "max_inference_s", "max_command_age_s", "max_clock_jump_s"):
        for value in (0.0, -1.0, math.nan):
            with pytest.raises(QvlaError, match=name):
                replace(SETTINGS, **{name: value})
    with pytest.raises(QvlaError, match="deadman_timeout_s"):
        replace(SETTINGS, deadman_timeout_s=-1.0)


def test_a_policy_of_single_actions_moves_the_arm() -> None:
    rig = Rig(blend_steps=2)
    rig.arm()
    rig.run(0.2)  # images from before are refused
    for _ in range(10):
        late = PlannedChunk(rig.ros_ns - 130_000_000, DT_S, np.array([[1.0, 0, 0, 0, 0, 0, 0.0]]))
        assert rig.controller.set_chunk(late, rig.ros_ns) == 0
        rig.run(DT_S)
    assert rig.stops == []
    assert rig.commands[-1].linear[0] == pytest.approx(START.linear[0] + 10 * 0.05)


def test_a_flushed_plan_is_not_driven_on_to_where_it_would_have_been() -> None:
    slow = motion_limits(3, max_linear_velocity=[0.5])
    rig = Rig(JOINTS, slow, max_command_age_s=10.0)
    rig.arm()
    rig.plan(np.tile(START.linear + 1.0, (K, 1)))  # far ahead of what the limits allow
    rig.run(0.3)
    before = rig.commands[-1].linear
    rig.controller.flush(rig.ros_ns)
    rig.run(2.0)
    assert rig.stops == []
    np.testing.assert_allclose(rig.commands[-1].linear, before, atol=0.5 * PERIOD_S)


def test_a_deadman_that_fell_silent_cannot_be_armed_with() -> None:
    rig = Rig(deadman_timeout_s=0.3)
    rig.tick()
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.run(0.5)
    with pytest.raises(QvlaError, match="the deadman is not held"):
        rig.arm()
    rig.controller.feed_deadman(True, rig.steady_s)
    rig.arm()
    assert rig.controller.armed


@pytest.mark.parametrize("clock_step_s", [0.003, 0.01, 0.017, 0.05])
def test_a_simulated_clock_of_any_step_carries_out_the_whole_plan(clock_step_s: float) -> None:
    rig = Rig(sim_time=True)
    rig.arm()
    rig.plan()
    sent_s, passed_s = 0.0, 0.0
    while passed_s < K * DT_S + 0.05:
        passed_s += PERIOD_S
        moved_s = clock_step_s * math.floor(passed_s / clock_step_s + 1e-9) - sent_s
        sent_s += moved_s
        rig.tick(PERIOD_S, moved_s)
    np.testing.assert_allclose(rig.commands[-1].linear[0], START.linear[0] + K * 0.05)
