"""While it is armed, the robot is commanded the plan as far as the limits allow.

There is one command a period.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.controller import RATE
from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 0.004), min_size=50, max_size=50))
def test_deltas_add_up_and_late_wake_ups_do_not_reach_the_robot(
    make_rig: Any, lateness_s: list[float]
) -> None:
    rig = make_rig()
    rig.arm()
    rig.plan(np.tile([1.0, 0, -1.0, 0, 0, 0.2, 0.0], (rig.steps, 1)))
    last_s = 0.0
    for late_s in lateness_s:
        rig.tick(rig.period_s + late_s - last_s)
        last_s = late_s
    np.testing.assert_allclose(
        rig.commands[-1].linear, rig.start.linear + rig.steps * 0.05 * np.array([1.0, 0.0, -1.0])
    )
    turned = rig.steps * 0.5 * 0.2
    np.testing.assert_allclose(
        rig.commands[-1].quaternion_xyzw, [0, 0, math.sin(turned / 2), math.cos(turned / 2)]
    )
    moved = np.diff([command.linear[0] for command in rig.commands])[: rig.steps * 5 - 2]
    np.testing.assert_allclose(moved, 0.05 / 5)
    assert rig.commands[0].gripper == 0.0


def test_an_absolute_plan_is_where_it_said_when_each_step_ends(make_rig: Any) -> None:
    rig = make_rig("joint_position")
    targets = np.random.default_rng(0).uniform(-1.0, 1.0, (rig.steps, 3))
    rig.arm()
    rig.plan(targets)
    rig.run(rig.steps * rig.step_dt_s)
    np.testing.assert_allclose(
        [command.linear for command in rig.commands[4::5]], targets, atol=1e-12
    )
    between = np.array([command.linear for command in rig.commands[4:10]])
    np.testing.assert_allclose(
        np.diff(between, axis=0), np.tile((targets[1] - targets[0]) / 5, (5, 1)), atol=1e-12
    )


def test_the_safety_chain_holds_and_counts_what_it_changed(make_rig: Any) -> None:
    rig = make_rig(
        limits=motion_limits(3, max_linear_velocity=0.5)
    ).moving()  # the plan wants 1 m/s
    np.testing.assert_allclose(np.diff([command.linear[0] for command in rig.commands]), 0.005)
    assert rig.controller.interventions["velocity"] == 10
    assert rig.controller.interventions["box"] == 0


def test_deltas_are_held_to_the_acceleration_and_to_nothing_else(make_rig: Any) -> None:
    """What an earlier delta was denied is not made up for, nor braked for."""
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=5.0))
    rig.arm()
    rig.plan(np.outer([1.0, 0.27], [1.0, 0, 0, 0, 0, 0, 0]))
    rig.run(2 * rig.step_dt_s)
    moved = np.diff([rig.start.linear[0], *(command.linear[0] for command in rig.commands)])
    np.testing.assert_allclose(moved, 0.01 * np.array([0.05, 0.1, 0.15, 0.2, 0.25, *[0.27] * 5]))


def test_a_robot_that_takes_velocities_is_kept_in_the_box_by_where_it_is(make_rig: Any) -> None:
    box = motion_limits(3, linear_low=-1.0, linear_high=0.35)
    rig = make_rig(limits=box, follow_measured=True, reaction_time_s=0.0)
    rig.follows = False
    rig.arm()
    rig.plan(count=40)
    velocities = []
    for _ in range(60):  # it goes at 0.9 of the commanded velocity, from x = 0.1
        rig.tick()
        assert rig.controller.motion is not None
        velocities.append(rig.controller.motion.linear_velocity[0])
        assert rig.measured is not None
        rig.measured = replace(
            rig.measured, linear=rig.measured.linear + [0.9 * velocities[-1] * rig.period_s, 0, 0]
        )
    # with its own sum, 0.35 would have been noticed after 25 ticks
    np.testing.assert_allclose(velocities[:25], 1.0)
    assert rig.measured.linear[0] == pytest.approx(0.35)
    assert rig.commands[-1].gripper == 0.0
    assert velocities[-1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("gap_s", "goes_on"), [(0.06, True), (0.15, False)])
def test_a_robot_that_takes_velocities_keeps_the_last_one_for_a_tenth_of_a_second(
    make_rig: Any, gap_s: float, goes_on: bool
) -> None:
    prompt = {"follow_measured": True, "reaction_time_s": 0.0}
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=5.0), **prompt)
    rig.arm()
    rig.plan(count=40)
    rig.run(0.5)
    assert rig.controller.motion is not None
    before = rig.controller.motion.linear_velocity[0]
    assert before > 0.5
    rig.tick(gap_s)
    change = 5.0 * rig.period_s
    after = rig.controller.motion.linear_velocity[0]
    assert after == pytest.approx(before if goes_on else 0.0, abs=change + 1e-9)


def test_a_new_plan_in_time_goes_on_without_a_stop(make_rig: Any) -> None:
    rig = make_rig(blend_steps=2)
    rig.arm()
    for _ in range(5):
        rig.plan()
        rig.run(0.2)
    assert rig.stops == []
    moved = np.diff([command.linear[0] for command in rig.commands])
    np.testing.assert_allclose(moved, 0.05 / 5)


def test_a_flush_brings_it_to_rest_and_refuses_looks_from_before(make_rig: Any) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=50.0)).moving()
    before_ns = rig.ros_ns - 1
    rig.controller.flush(rig.ros_ns)
    assert (
        rig.controller.set_chunk(
            PlannedChunk(before_ns, rig.step_dt_s, np.ones((rig.steps, 7))), rig.ros_ns
        )
        is None
    )
    rig.run(0.05)
    moved = np.diff([command.linear[0] for command in rig.commands])
    # 1 m/s, 0.5 m/s, rest
    np.testing.assert_allclose(moved[-5:], [0.005, 0.0, 0.0, 0.0, 0.0], atol=1e-12)
    assert rig.plan() == 0
    rig.run(0.05)
    assert rig.stops == []
    rig.controller.flush(rig.ros_ns)
    rig.run(rig.settings.max_command_age_s + 2 * rig.period_s)
    assert rig.stops == [StopReason.plan_exhausted]


def test_ticks_in_a_burst_are_not_passed_on(make_rig: Any) -> None:
    rig = make_rig().moving()
    for _ in range(4):
        assert rig.tick(0.001) == Decision()
    assert rig.controller.interventions[RATE] == 4
    sent = len(rig.commands)
    for _ in range(1000):
        rig.tick(0.001)
    assert 100 <= len(rig.commands) - sent <= 102


def test_after_a_stall_the_lost_time_is_not_made_up_for(make_rig: Any) -> None:
    rig = make_rig()
    rig.arm()
    rig.plan(np.outer(np.arange(rig.steps), [0.1, 0, 0, 0, 0, 0, 0]))
    rig.run(0.06)
    for stall_s, step in ((0.2, 5), (rig.period_s, 5), (0.05, 6)):
        rig.tick(stall_s)
        moved = rig.commands[-1].linear[0] - rig.commands[-2].linear[0]
        np.testing.assert_allclose(moved, 0.001 * step)


@pytest.mark.parametrize(
    ("gap_s", "expected"),
    # a stop brakes by 10 m/s^2, and what is left may speed up by 0.05 m/s
    [(0.01, 1.0), (0.0149, 1.0), (0.035, 0.85), (0.1, 0.2), (0.12, 0.05), (0.2, 0.05)],
)
def test_after_a_gap_a_command_starts_from_the_speed_that_the_robot_may_still_have(
    make_rig: Any, gap_s: float, expected: float
) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=5.0))
    rig.arm()
    rig.plan(count=40)  # 1 m/s
    rig.run(0.5)
    rig.tick(gap_s)
    moved = rig.commands[-1].linear[0] - rig.commands[-2].linear[0]
    assert moved == pytest.approx(expected * rig.period_s)


def test_after_a_gap_a_stop_has_nothing_to_brake(make_rig: Any) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=5.0), max_stall_s=0.1)
    rig.arm()
    rig.plan(count=40)
    rig.run(0.5)
    last = rig.commands[-1]
    assert rig.tick(0.15).stop is StopReason.stalled
    assert rig.commands[-1] is last
    assert not rig.controller.is_stopping


def test_in_simulated_time_a_gap_is_one_of_that_clock(make_rig: Any) -> None:
    rig = make_rig(limits=motion_limits(3, max_linear_acceleration=5.0), use_sim_time=True)
    rig.arm()
    rig.plan(count=40)
    rig.run(0.5)
    rig.tick(0.3, 0.01)  # the simulation was slow
    assert rig.controller.motion.linear_velocity[0] == pytest.approx(1.0)
    rig.tick(0.01, 0.2)  # it has gone on alone
    assert rig.controller.motion.linear_velocity[0] == pytest.approx(1.0)  # 5 m/s^2 for 0.2 s
    assert rig.controller.motion.dt_s == pytest.approx(0.2)
    for _ in range(10):
        rig.tick(0.01, 0.05)  # as fast as that all the time is no gap
    assert rig.controller.motion.linear_velocity[0] == pytest.approx(1.0)


def test_a_policy_of_single_actions_moves_the_arm(make_rig: Any) -> None:
    rig = make_rig(blend_steps=2)
    rig.arm()
    rig.run(0.2)  # images from before are refused
    for _ in range(10):
        late = PlannedChunk(
            rig.ros_ns - 130_000_000, rig.step_dt_s, np.array([[1.0, 0, 0, 0, 0, 0, 0.0]])
        )
        assert rig.controller.set_chunk(late, rig.ros_ns) == 0
        rig.run(rig.step_dt_s)
    assert rig.stops == []
    assert rig.commands[-1].linear[0] == pytest.approx(rig.start.linear[0] + 10 * 0.05)


def test_a_flushed_plan_is_not_driven_on_to_where_it_would_have_been(make_rig: Any) -> None:
    slow = motion_limits(3, max_linear_velocity=[0.5])
    rig = make_rig("joint_position", slow, max_command_age_s=10.0)
    rig.arm()
    rig.plan(np.tile(rig.start.linear + 1.0, (rig.steps, 1)))  # far ahead of what the limits allow
    rig.run(0.3)
    before = rig.commands[-1].linear
    rig.controller.flush(rig.ros_ns)
    rig.run(2.0)
    assert rig.stops == []
    np.testing.assert_allclose(rig.commands[-1].linear, before, atol=0.5 * rig.period_s)


@pytest.mark.parametrize("real_time_factor", [0.3, 0.5, 0.8, 1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("clock_step_s", [0.001, 0.004])
def test_a_twist_carries_as_far_as_the_plan_whatever_the_speed_of_the_simulation(
    make_rig: Any, real_time_factor: float, clock_step_s: float
) -> None:
    rig = make_rig(use_sim_time=True)
    rig.arm()
    rig.plan()
    went_m = 0.0
    velocity = 0.0
    sent_s = 0.0
    passed_s = 0.0
    velocities = []
    while sent_s < rig.steps * rig.step_dt_s + 0.08:
        passed_s += rig.period_s * real_time_factor
        moved_s = clock_step_s * math.floor(passed_s / clock_step_s + 1e-9) - sent_s
        went_m = went_m + velocity * moved_s
        sent_s = sent_s + moved_s
        if rig.tick(rig.period_s, moved_s).command is not None:
            velocity = rig.controller.motion.linear_velocity[0]
            velocities.append(velocity)
    assert rig.stops == []
    step_s = max(rig.period_s, rig.period_s * real_time_factor) + clock_step_s
    # m, at 1 m/s: one command more or less
    assert went_m == pytest.approx(rig.steps * 0.05, abs=1.5 * step_s)
    at_work = [velocity for velocity in velocities if velocity > 0.0][:-2]
    assert at_work
    np.testing.assert_allclose(at_work, 1.0, rtol=0.5)
    np.testing.assert_allclose(np.mean(at_work), 1.0, rtol=0.05)


def test_a_simulation_that_stands_still_makes_no_measurement_old(make_rig: Any) -> None:
    rig = make_rig(use_sim_time=True).moving()
    rig.measured = None
    rig.follows = False
    for _ in range(200):
        rig.tick(rig.period_s, 0.0)
    assert rig.stops == []
    for _ in range(60):
        rig.tick()
    assert rig.stops == [StopReason.bad_measurement]


@pytest.mark.parametrize("clock_step_s", [0.003, 0.01, 0.017, 0.05])
def test_a_simulated_clock_of_any_step_carries_out_the_whole_plan(
    make_rig: Any, clock_step_s: float
) -> None:
    rig = make_rig(use_sim_time=True)
    rig.arm()
    rig.plan()
    sent_s = 0.0
    passed_s = 0.0
    while passed_s < rig.steps * rig.step_dt_s + 0.05:
        passed_s += rig.period_s
        moved_s = clock_step_s * math.floor(passed_s / clock_step_s + 1e-9) - sent_s
        sent_s += moved_s
        rig.tick(rig.period_s, moved_s)
    np.testing.assert_allclose(rig.commands[-1].linear[0], rig.start.linear[0] + rig.steps * 0.05)
