"""A course keeps the limits between commands too, and brakes to rest when no more come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.course import APART_S, JOIN_S, Course, braking
from qvla_ros.control.limits import motion_limits, stop_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import limit_motion
from qvla_ros.control.setpoint import Setpoint

PERIOD_S = 0.01
AHEAD_S = 0.06
MAX_VELOCITY = 0.5
MAX_ACCELERATION = 2.0
LIMITS = motion_limits(
    2,
    -0.2,
    0.2,
    max_linear_velocity=MAX_VELOCITY,
    max_linear_acceleration=MAX_ACCELERATION,
)
REST = Setpoint(np.zeros(2))
BRAKING = stop_limits(LIMITS)
STOP_DECELERATION = 2.0 * MAX_ACCELERATION


class Planner:
    """A course, and commands on it towards targets."""

    def __init__(self, **options: Any) -> None:
        self.course = Course(LIMITS, BRAKING, PERIOD_S, AHEAD_S, **options)
        self.course.begin(REST, -JOIN_S)
        self.motion: MotionState = at_rest(REST)

    def tick(self, now_s: float, target: Any) -> int:
        """How many commands were planned."""
        planned = 0
        self.motion = self.course.resumed(self.motion, now_s)
        for time_s in self.course.due_s(now_s):
            self.motion, _ = limit_motion(
                Setpoint(np.asarray(target, float)), self.motion, LIMITS, PERIOD_S
            )
            self.course.extend(time_s, self.motion)
            planned += 1
        return planned

    def positions(self, begin_ms: int, end_ms: int) -> np.ndarray:
        """The course at 1 kHz, [N, 2]."""
        return np.array([self.course.at(0.001 * at_ms)[0] for at_ms in range(begin_ms, end_ms)])


targets = st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)), min_size=1, max_size=8)
gaps_ms = st.lists(st.integers(1, 120), min_size=1, max_size=15)


@settings(max_examples=40, deadline=None)
@given(targets, gaps_ms)
def test_whenever_ticks_come_the_joints_keep_box_velocity_and_acceleration_at_all_times(
    goals: list[tuple[float, float]], gaps: list[int]
) -> None:
    planner = Planner()
    now_ms = 0
    seen: list[np.ndarray] = []
    for number, gap_ms in enumerate(gaps):
        seen.extend(planner.positions(now_ms, now_ms + gap_ms))
        now_ms += gap_ms
        planner.tick(0.001 * now_ms, goals[number % len(goals)])
    seen.extend(planner.positions(now_ms, now_ms + 500))
    positions = np.array(seen)
    velocities = np.diff(positions, axis=0) / 0.001
    accelerations = np.diff(velocities, axis=0) / 0.001
    assert np.abs(accelerations).max() <= MAX_ACCELERATION * 1.1
    assert np.abs(positions).max() <= 0.2 + 1e-9
    assert np.abs(velocities).max(initial=0.0) <= MAX_VELOCITY + 1e-6
    np.testing.assert_allclose(velocities[-1], 0.0, atol=1e-9)


def test_late_ticks_are_made_up_for_and_bursts_plan_nothing() -> None:
    planner = Planner()
    assert planner.tick(0.01, [0.1, 0.0]) == 3  # the first half stays at rest
    assert planner.tick(0.011, [0.1, 0.0]) == 0
    assert planner.tick(0.02, [0.1, 0.0]) == 1
    assert planner.tick(0.05, [0.1, 0.0]) == 3


def test_what_was_sent_is_kept_until_the_next_message_can_have_arrived() -> None:
    planner = Planner()
    for tick in range(1, 20):
        planner.tick(0.01 * tick, [0.2, -0.2])
    now_ms = 190 + 120  # long enough to be braking
    expected = planner.positions(now_ms - 10, now_ms + 30)
    planner.tick(0.001 * now_ms, [0.2, -0.2])
    kept = planner.positions(now_ms - 10, now_ms + 30)
    np.testing.assert_allclose(kept, expected, atol=1e-12)


def test_a_stop_brakes_from_half_the_look_ahead_on_and_says_where_it_ends() -> None:
    planner = Planner()
    for tick in range(1, 30):
        planner.tick(0.01 * tick, [0.2, 0.01])
    position, velocity = planner.course.at(0.29 + 0.5 * AHEAD_S)
    rest = planner.course.stop(planner.motion, 0.29)
    np.testing.assert_array_equal(rest.linear_velocity, 0.0)
    np.testing.assert_allclose(
        rest.setpoint.linear,
        position + 0.5 * velocity * np.abs(velocity) / STOP_DECELERATION,
    )
    assert velocity[0] > 0.1
    ahead = planner.course.ahead(0.29)
    np.testing.assert_allclose(ahead.positions[-1], rest.setpoint.linear)
    np.testing.assert_allclose(ahead.times_s[-1], 0.5 * AHEAD_S + velocity[0] / STOP_DECELERATION)


@pytest.mark.parametrize("even_tail", [False, True])
def test_a_message_begins_in_the_past_rises_in_time_and_ends_at_rest(even_tail: bool) -> None:
    planner = Planner(even_tail=even_tail)
    for tick in range(1, 20):
        now_s = 0.0101 * tick
        planner.tick(now_s, [0.2, -0.1])
        ahead = planner.course.ahead(now_s)
        assert -PERIOD_S - 1e-9 <= ahead.times_s[0] <= -PERIOD_S + APART_S
        assert (np.diff(ahead.times_s) > APART_S).all()
        assert ahead.times_s[-1] >= AHEAD_S - PERIOD_S
        np.testing.assert_allclose(ahead.velocities[-1], 0.0, atol=1e-12)
        if even_tail and tick > 10:  # until then it holds the rest from which it began
            assert np.diff(ahead.times_s).max() <= PERIOD_S * (1.0 + 1e-6) + APART_S


def test_the_robot_has_time_to_go_from_what_it_holds_to_where_the_course_begins() -> None:
    course = Course(LIMITS, BRAKING, PERIOD_S, AHEAD_S)
    course.begin(REST, 10.0)
    assert list(course.due_s(10.0)) == []
    np.testing.assert_allclose(course.ahead(10.0).times_s, [JOIN_S, JOIN_S + PERIOD_S])
    stopped = course.stop(at_rest(REST), 10.0)
    np.testing.assert_array_equal(stopped.setpoint.linear, REST.linear)


def test_without_a_limit_on_acceleration_the_tail_stands_at_once() -> None:
    course = Course(motion_limits(2), motion_limits(2), PERIOD_S, AHEAD_S)
    course.begin(REST, -JOIN_S)
    moved = MotionState(Setpoint(np.ones(2)), np.full(2, 100.0), np.zeros(3))
    course.extend(0.02, moved)
    position, velocity = course.at(10.0)
    np.testing.assert_array_equal(velocity, 0.0)
    np.testing.assert_allclose(position, 0.5)
    assert np.isfinite(course.ahead(0.01).positions).all()


@given(st.floats(-5.0, 5.0), st.floats(0.01, 10.0), st.floats(0.0, 10.0))
def test_braking_is_uniform_and_ends_at_rest(
    velocity: float, deceleration: float, after_s: float
) -> None:
    position, left = braking(np.zeros(1), np.array([velocity]), np.array([deceleration]), after_s)
    if after_s >= abs(velocity) / deceleration:
        assert left[0] == pytest.approx(0.0, abs=1e-11)
        assert position[0] == pytest.approx(
            velocity * abs(velocity) / (2.0 * deceleration), abs=1e-11
        )
    else:
        lost = np.sign(velocity) * deceleration * after_s
        assert left[0] == pytest.approx(velocity - lost, abs=1e-9)
        assert position[0] == pytest.approx((velocity - 0.5 * lost) * after_s, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(1, 400), st.booleans())
def test_a_stop_however_late_its_tick_goes_on_from_where_the_joints_then_are(
    moved_ms: int, late_ms: int, even_tail: bool
) -> None:
    planner = Planner(even_tail=even_tail)
    for at_ms in range(0, moved_ms + 1, 10):
        planner.tick(0.001 * at_ms, [0.2, -0.2])
    now_ms = moved_ms + late_ms
    before = planner.positions(0, now_ms)
    planner.course.stop(planner.motion, 0.001 * now_ms)
    path = np.concatenate([before, planner.positions(now_ms, now_ms + 600)])
    velocity = np.diff(path, axis=0) / 0.001
    assert np.abs(velocity).max() <= MAX_VELOCITY * (1.0 + 1e-6)
    assert np.abs(np.diff(velocity, axis=0)).max() / 0.001 <= STOP_DECELERATION * (1.0 + 1e-4)
    assert np.abs(path).max() <= 0.2 + 1e-9
    np.testing.assert_allclose(velocity[-1], 0.0, atol=1e-9)
    times_s = planner.course.ahead(0.001 * now_ms).times_s
    assert (np.diff(times_s) > 0.0).all()
    assert times_s[-1] > 0.0  # a controller refuses what has ended


@given(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)))
def test_the_way_from_where_the_last_course_ended_keeps_the_limits(start: Any) -> None:
    """The robot's controller goes there by a cubic from rest to rest."""
    course = Course(LIMITS, BRAKING, PERIOD_S, AHEAD_S)
    course.begin(REST, 0.0)
    course.stop(at_rest(REST), 1.0)
    course.begin(Setpoint(np.array(start)), 2.0)
    lasts_s = course.ahead(2.0).times_s[0]
    way = np.abs(start).max()
    assert lasts_s >= JOIN_S - 1e-9
    assert 1.5 * way / lasts_s <= MAX_VELOCITY * (1.0 + 1e-6)
    assert 6.0 * way / lasts_s**2 <= MAX_ACCELERATION * (1.0 + 1e-6)
