"""Judges measured states: which can be believed, and whether the arm is at rest.

No arm moves faster than it can. A state that is further from the one before than the velocity
limits allow, with a margin, is a slip of a sensor or of a driver: nothing is commanded from it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.braking import ENDLESS
from qvla_ros.control.limits import MotionLimits
from qvla_ros.control.motion import is_usable
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError

# How far a state may be from the one before whatever the time between them: what sensors and stamps
# are wrong by. m or rad along an axis, and rad of a turn.
NOISE_LINEAR = 0.01
NOISE_ANGULAR_RAD = 0.02
SETTLE_S = 0.5  # after a state that could not be believed, until the arm may be armed again
# What an arm at rest may move by within REST_S: m or rad along an axis, and rad of a turn.
REST_S = 0.25
REST_LINEAR = 0.005
REST_ANGULAR_RAD = 0.01


class Sample(NamedTuple):
    """A measured state and when it was: seconds of a clock that all samples share."""

    at_s: float
    state: Setpoint


class MeasuredTrack:
    """The measured states of the last REST_S, each judged by the one before.

    margin: times the velocity limits that the arm may be seen to move at; infinite: all is
    believed. Times are those of the states' stamps.
    """

    def __init__(self, limits: MotionLimits, margin: float) -> None:
        self._linear = np.minimum(margin * limits.max_linear_velocity, ENDLESS)
        self._angular = min(margin * limits.max_angular_velocity_rad_s, ENDLESS)
        self._samples: deque[Sample] = deque()
        self._slipped_s = -math.inf  # when a state could last not be believed

    def note(self, state: Setpoint, at_s: float) -> bool:
        """Adds a usable state; whether it can be believed."""
        believed = self._believes(state, at_s)
        if not believed:
            self._samples.clear()
            self._slipped_s = at_s
        elif self._samples and at_s < self._samples[-1].at_s:
            self._samples.clear()
        self._samples.append(Sample(at_s, state))
        while self._samples[0].at_s < at_s - REST_S:
            self._samples.popleft()
        return believed

    def require_arm_at_rest(self, state: Setpoint, at_s: float) -> None:
        """Raises QvlaError where the arm moves, or has been seen to move faster than it can."""
        since_s = at_s - self._slipped_s
        if not self._believes(state, at_s) or since_s < SETTLE_S:
            expected = f"{SETTLE_S:g} s of states that move no faster than the arm can"
            fix = "see whether the robot's driver is well, then call ~/arm again"
            found = "one that was somewhere else at once"
            raise QvlaError("arm: measured state", found, expected, fix)
        for sample in self._samples:
            linear, angular_rad = distance(sample.state, state)
            if linear.max() > REST_LINEAR or angular_rad > REST_ANGULAR_RAD:
                found = f"moved by {linear.max():.3g} m or rad and {angular_rad:.3g} rad of turn"
                expected = f"an arm at rest for {REST_S:g} s"
                fix = "wait until it is at rest, then call ~/arm again"
                raise QvlaError("arm: measured state", found, expected, fix)

    def _believes(self, state: Setpoint, at_s: float) -> bool:
        if not self._samples or not is_usable(state):
            return not self._samples
        last = self._samples[-1]
        passed_s = max(at_s - last.at_s, 1e-9)  # not 0: without a limit all is believed
        linear, angular_rad = distance(last.state, state)
        return bool(
            (linear <= self._linear * passed_s + NOISE_LINEAR).all()
            and angular_rad <= self._angular * passed_s + NOISE_ANGULAR_RAD
        )


def distance(start: Setpoint, end: Setpoint) -> tuple[np.ndarray, float]:
    """Along each axis, and the angle of the turn between the two."""
    linear = np.abs(end.linear - start.linear)
    if start.quaternion_xyzw is None or end.quaternion_xyzw is None:
        return linear, 0.0
    turn = rotation.between(start.quaternion_xyzw, end.quaternion_xyzw)
    return linear, float(np.linalg.norm(turn))
