"""A measured state is believed while it is no further from the one before than the arm can move."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.limits import motion_limits
from qvla_ros.control.measurement import (
    LATE_S,
    MAX_SAMPLES,
    NOISE_ANGULAR_RAD,
    NOISE_LINEAR,
    MeasuredTrack,
)
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.testing.measurement_attack import Attack, Slip

LIMITS = motion_limits(2, max_linear_velocity=[0.5, 1.0], max_angular_velocity_rad_s=2.0)


def at(*place: float, turn_rad: float = 0.0) -> Setpoint:
    half = 0.5 * turn_rad
    return Setpoint(np.array(place), np.array([0.0, 0.0, math.sin(half), math.cos(half)]))


@pytest.mark.parametrize(
    ("state", "passed_s", "believed"),
    [
        (at(1.5 * 0.1 + 0.99 * NOISE_LINEAR, 0.0), 0.1, True),
        (at(1.5 * 0.1 + 1.01 * NOISE_LINEAR, 0.0), 0.1, False),
        (at(0.0, -3.0 * 0.1 - 0.99 * NOISE_LINEAR), 0.1, True),
        (at(0.0, -3.0 * 0.1 - 1.01 * NOISE_LINEAR), 0.1, False),
        (at(0.0, 0.0, turn_rad=6.0 * 0.1 + 0.99 * NOISE_ANGULAR_RAD), 0.1, True),
        (at(0.0, 0.0, turn_rad=-6.0 * 0.1 - 1.01 * NOISE_ANGULAR_RAD), 0.1, False),
        (at(0.99 * NOISE_LINEAR, 0.0), 0.0, True),
        (at(1.01 * NOISE_LINEAR, 0.0), 0.0, False),
        (at(1.01 * NOISE_LINEAR, 0.0), -5.0, False),
        (at(2.0, 0.0), 2.0, True),
    ],
)
def test_what_is_believed_grows_with_the_time_between(
    state: Setpoint, passed_s: float, believed: bool
) -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    assert track.note(at(0.0, 0.0), 10.0, 20.0)  # the first contradicts nothing
    assert track.note(state, 10.0 + passed_s, 20.0 + passed_s) is believed


def test_the_other_quaternion_of_a_rotation_is_no_jump() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    state = at(0.0, 0.0, turn_rad=1.0)
    opposite = replace(state, quaternion_xyzw=-state.quaternion_xyzw)  # type: ignore[operator]
    assert track.note(state, 0.0, 0.0)
    assert track.note(opposite, 0.01, 0.01)


def test_a_slip_is_two_jumps_and_what_stays_is_believed_again() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    places = [0.0, 0.0, 0.7, 0.0, 0.0, 0.7, 0.7, 0.7]
    believed = [track.note(at(x, 0.0), 0.01 * tick, 0.01 * tick) for tick, x in enumerate(places)]
    assert believed == [True, True, False, False, True, False, True, True]


def test_without_a_limit_everything_is_believed() -> None:
    for track in (MeasuredTrack(motion_limits(2), 3.0), MeasuredTrack(LIMITS, math.inf)):
        assert track.note(at(0.0, 0.0), 1.0, 1.0)
        assert track.note(at(100.0, 0.0, turn_rad=3.0), 1.0, 1.0)


def test_a_clock_that_falls_back_keeps_no_state_of_its_future() -> None:
    for heard_s in (1.0, -1.0):
        track = MeasuredTrack(LIMITS, 3.0)
        for tick in range(1000):
            track.note(at(0.0, 0.0), 100.0 - tick, heard_s * tick)
        assert len(track._samples) == 1


def test_a_clock_that_stands_still_keeps_no_more_and_more_states() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    for tick in range(2 * MAX_SAMPLES):
        track.note(at(0.0, 0.0), 0.001 * tick, 5.0)
    assert len(track._samples) == MAX_SAMPLES


def test_one_old_stamp_lets_the_arm_be_nowhere_that_it_cannot_have_reached() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    track.note(at(0.0, 0.0), 10.0, 10.0)
    assert track.note(at(0.0, 0.0), 5.0, 10.01)
    furthest = 1.5 * (0.01 + LATE_S) + NOISE_LINEAR
    assert not track.note(at(1.01 * furthest, 0.0), 10.02, 10.02)


def test_a_slip_stamped_in_the_far_future_keeps_from_arming_for_no_longer_than_any() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    track.note(at(0.0, 0.0), 10.0, 10.0)
    assert not track.note(at(0.9, 0.0), 1e6, 10.01)
    for tick in range(2, 55):
        now_s = 10.0 + 0.01 * tick
        track.note(at(0.9, 0.0), now_s, now_s)
        if now_s < 10.5:
            with pytest.raises(QvlaError, match="somewhere else at once"):
                track.require_arm_at_rest(at(0.9, 0.0), now_s, now_s)
    track.require_arm_at_rest(at(0.9, 0.0), now_s, now_s)


def test_states_that_were_held_up_and_come_together_are_believed() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    track.note(at(0.0, 0.0), 10.0, 10.2)
    assert track.note(at(0.5 * 0.2, 0.0), 10.2, 10.21)


SIZES = st.floats(-3.0, 3.0)
SLIPS = st.builds(
    Slip, st.tuples(SIZES, SIZES, SIZES), st.none() | st.floats(-3.1, 3.1), st.just(False)
)
SMALL = st.builds(Slip, st.tuples(*[st.floats(-0.02, 0.02)] * 3))
STEPS = st.lists(st.just(None) | SLIPS | SMALL | st.just(Slip(is_nan=True)), max_size=20)
START = Setpoint(np.array([0.3, 0.0, -0.3]), np.array([0.0, 0.0, 0.0, 1.0]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["delta_end_effector_pose", "end_effector_pose"]), st.integers(0, 20), STEPS)
def test_no_measurement_makes_a_command_leave_the_box_or_breach_a_limit(
    kind: str, periods: int, steps: list[Slip | None]
) -> None:
    attack = Attack(kind, START)
    for _ in range(periods):
        attack.follow()
    for step in steps:
        attack.follow() if step is None else attack.slip(step)
    attack.run_out()
    assert attack.breach() == ""


@pytest.mark.parametrize(
    "slip",
    [
        Slip((0.0, 0.0, -1.0)),
        Slip((0.08, 0.0, 0.0)),
        Slip((0.0, -0.2, 0.0)),
        Slip((3.0, 3.0, 3.0), turn_rad=3.0),
        Slip(turn_rad=-1.0),
    ],
)
def test_one_slip_stops_the_arm_as_a_bad_measurement_and_is_not_armed_from(slip: Slip) -> None:
    attack = Attack("delta_end_effector_pose", START)
    for _ in range(10):
        attack.follow()
    attack.slip(slip)
    assert attack.stop is StopReason.bad_measurement
    for _ in range(10):
        attack.slip(slip)
    attack.run_out()
    assert not attack.arm(attack.commands[-1])
    assert attack.breach() == ""


def test_an_attack_tells_a_breach() -> None:
    attack = Attack("delta_end_effector_pose", START)
    for _ in range(5):
        attack.follow()
    assert attack.breach() == ""
    lunge = replace(START, linear=np.array([0.3, 0.0, -0.45]))
    attack.commands.append(lunge)
    assert attack.breach().startswith("the velocity")
    attack.commands.append(replace(START, linear=np.array([0.3, 0.0, -0.51])))
    assert attack.breach().startswith("the box")
