"""A measured state is believed while it is no further from the one before than the arm can move."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.measurement import NOISE_ANGULAR_RAD, NOISE_LINEAR, MeasuredTrack
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError

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
    assert track.note(at(0.0, 0.0), 10.0)  # nothing is known that the first could contradict
    assert track.note(state, 10.0 + passed_s) is believed


def test_the_other_quaternion_of_a_rotation_is_no_jump() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    state = at(0.0, 0.0, turn_rad=1.0)
    opposite = replace(state, quaternion_xyzw=-state.quaternion_xyzw)  # type: ignore[operator]
    assert track.note(state, 0.0)
    assert track.note(opposite, 0.01)


def test_a_slip_is_two_jumps_and_what_stays_is_believed_again() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    places = [0.0, 0.0, 0.7, 0.0, 0.0, 0.7, 0.7, 0.7]
    believed = [track.note(at(x, 0.0), 0.01 * tick) for tick, x in enumerate(places)]
    assert believed == [True, True, False, False, True, False, True, True]


def test_without_a_limit_everything_is_believed() -> None:
    for track in (MeasuredTrack(motion_limits(2), 3.0), MeasuredTrack(LIMITS, math.inf)):
        assert track.note(at(0.0, 0.0), 1.0)
        assert track.note(at(100.0, 0.0, turn_rad=3.0), 1.0)


def test_a_clock_that_falls_back_keeps_no_state_of_its_future() -> None:
    track = MeasuredTrack(LIMITS, 3.0)
    for tick in range(1000):
        track.note(at(0.0, 0.0), 100.0 - tick)
    assert len(track._samples) == 1


PERIOD_S = 0.02
BOX = 0.5
VELOCITY = 0.6
ACCELERATION = 2.0
ATTACKED = motion_limits(3, -BOX, BOX, 0.02, VELOCITY, ACCELERATION, 0.05, 1.5, 6.0)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["follows", "follows", "follows", "slips", "stays", "none"]),
        st.floats(-1.0, 1.0),  # where a slip goes to, as a share of the farthest
        st.integers(0, 4),  # what slips: an axis, the turn, or everything
    ),
    min_size=1,
    max_size=40,
)


class Attack:
    """An armed controller whose plan goes for the walls, and what is measured of its arm."""

    def __init__(self, kind: str) -> None:
        self.controller = Controller(
            ControllerSettings(
                PERIOD_S, 10.0, 10.0, 10.0, max_linear_lead=0.05, max_angular_lead_rad=0.2
            ),
            MotionSpec(kind, 1.0, 1.0, None),
            ATTACKED,
        )
        self.measured = Setpoint(np.array([0.3, 0.0, -0.3]), np.array([0.0, 0.0, 0.0, 1.0]))
        self.ros_ns = 10**18
        self.steady_s = 100.0
        self.commands: list[Setpoint] = []
        self.stop: StopReason | None = None

    def arm(self) -> None:
        """Again from where it is measured, if that may be."""
        try:
            self.controller.arm(self.measured, self.ros_ns)
        except QvlaError:
            return
        self.commands.append(self.measured)
        actions = np.tile([0.3, 0.1, -0.3, 0.2, 0.0, 0.4], (100, 1))
        self.controller.set_chunk(PlannedChunk(self.ros_ns, 0.1, actions), self.ros_ns)

    def tick(self, what: str, share: float, where: int) -> None:
        self.steady_s += PERIOD_S
        self.ros_ns += round(PERIOD_S * 1e9)
        measured = None if what == "none" else self._seen(what, share, where)
        self.controller.feed_input(self.ros_ns)
        decision = self.controller.tick(self.ros_ns, self.steady_s, measured)
        self.stop = decision.stop or self.stop
        if decision.command is not None:
            self.commands.append(decision.command)

    def _seen(self, what: str, share: float, where: int) -> Setpoint:
        if what == "follows" and self.commands:
            self.measured = self.commands[-1]
        if what != "slips":
            return self.measured
        place = self.measured.linear.copy()
        place[slice(None) if where == 4 else where % 3] += 3.0 * share
        turn = np.array([0.0, 0.0, math.sin(1.5 * share), math.cos(1.5 * share)])
        return Setpoint(place, turn if where >= 3 else self.measured.quaternion_xyzw)

    def check(self) -> None:
        """No command leaves the box or breaches a limit, whatever was measured."""
        places = np.array([command.linear for command in self.commands])
        assert (np.abs(places) <= BOX).all()
        velocities = np.diff(places, axis=0) / PERIOD_S
        assert (np.abs(velocities) <= VELOCITY * (1.0 + 1e-12)).all()
        changes = np.diff(velocities, axis=0, prepend=0.0)
        hardest = 2.0 * ACCELERATION * PERIOD_S + 1e-9  # that of a stop
        assert (np.abs(changes) <= hardest).all()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["delta_end_effector_pose", "end_effector_pose"]), STEPS)
def test_no_measurement_makes_a_command_leave_the_box_or_breach_a_limit(
    kind: str, steps: list[Any]
) -> None:
    attack = Attack(kind)
    attack.tick("stays", 0.0, 0)
    attack.arm()
    for step in steps:
        attack.tick(*step)
    for _ in range(80):
        attack.tick("stays", 0.0, 0)
    attack.check()
    assert not attack.controller.is_stopping


@pytest.mark.parametrize("share", [-1.0, -0.2, 0.05, 1.0])
@pytest.mark.parametrize("where", range(5))
def test_one_slip_stops_the_arm_as_a_bad_measurement_and_is_not_armed_from(
    share: float, where: int
) -> None:
    attack = Attack("delta_end_effector_pose")
    attack.tick("stays", 0.0, 0)
    attack.arm()
    for _ in range(10):
        attack.tick("follows", 0.0, 0)
    attack.tick("slips", share, where)
    assert attack.stop is StopReason.bad_measurement
    for _ in range(30):
        attack.tick("slips", share, where)
    assert not attack.controller.is_stopping
    with pytest.raises(QvlaError, match="somewhere else at once"):
        attack.controller.arm(attack.measured, attack.ros_ns)
    attack.check()
