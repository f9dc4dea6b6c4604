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
LATE_S = 0.1  # how much later than the one before a state may have been on its way
SETTLE_S = 0.5  # after a state that could not be believed, until the arm may be armed again
# What an arm at rest may move by within REST_S: m or rad along an axis, and rad of a turn.
REST_S = 0.25
AGREE_S = 0.1  # what the arm moves by in it, two states that agree on where it is may differ by
MAX_SAMPLES = 1024  # of a simulated clock that stands still while states come
REST_LINEAR = 0.005
REST_ANGULAR_RAD = 0.01


class Sample(NamedTuple):
    """A measured state, when it was by its stamp, and when it was heard of."""

    at_s: float
    heard_s: float
    state: Setpoint


class MeasuredTrack:
    """The measured states of the last REST_S and one from before, each judged by the one before.

    margin: times the velocity limits that the arm may be seen to move at; infinite: all is
    believed. at_s: the stamp of a state, seconds. heard_s: when it came, by the robot's clock: no
    stamp, whatever it says, makes more time pass than that clock and LATE_S.
    """

    def __init__(self, limits: MotionLimits, margin: float) -> None:
        self._linear = np.minimum(margin * limits.max_linear_velocity, ENDLESS)
        self._angular = min(margin * limits.max_angular_velocity_rad_s, ENDLESS)
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._slipped_s = -math.inf  # when a state could last not be believed

    def note(self, state: Setpoint, at_s: float, heard_s: float) -> bool:
        """Adds a usable state; whether it can be believed."""
        believed = self._believes(state, at_s, heard_s)
        # A clock that was set back: then the slip was at the latest now.
        self._slipped_s = min(self._slipped_s, heard_s) if believed else heard_s
        if not believed or self._goes_back(at_s, heard_s):
            self._samples.clear()
        self._samples.append(Sample(at_s, heard_s, state))
        while len(self._samples) > 1 and self._samples[1].heard_s <= heard_s - REST_S:
            self._samples.popleft()
        return believed

    def agrees(self) -> bool:
        """Whether the last state but one says nearly the same of where the arm is."""
        if len(self._samples) < 2:
            return False
        before = self._samples[-2].state
        return self._is_within(before, self._samples[-1].state, AGREE_S)

    def require_arm_at_rest(self, state: Setpoint, at_s: float, heard_s: float) -> None:
        """Raises QvlaError where the arm moves, has been seen to move faster than it can, or has
        not been seen for REST_S.
        """
        since_s = heard_s - min(self._slipped_s, heard_s)
        if not self._believes(state, at_s, heard_s) or since_s < SETTLE_S:
            expected = f"{SETTLE_S:g} s of states that move no faster than the arm can"
            fix = "see whether the robot's driver is well, then call ~/arm again"
            found = "one that was somewhere else at once"
            raise QvlaError("arm: measured state", found, expected, fix)
        self._require_states_for_long_enough()
        for sample in self._samples:
            linear, angular_rad = distance(sample.state, state)
            if linear.max() > REST_LINEAR or angular_rad > REST_ANGULAR_RAD:
                found = f"moved by {linear.max():.3g} m or rad and {angular_rad:.3g} rad of turn"
                expected = f"an arm at rest for {REST_S:g} s"
                fix = "wait until it is at rest, then call ~/arm again"
                raise QvlaError("arm: measured state", found, expected, fix)

    def _require_states_for_long_enough(self) -> None:
        seen_s = self._samples[-1].heard_s - self._samples[0].heard_s if self._samples else 0.0
        if seen_s < REST_S:
            found = f"states for {seen_s:.2f} s"
            expected = f"an arm at rest for {REST_S:g} s"
            fix = "wait until that much is known of it, then call ~/arm again"
            raise QvlaError("arm: measured state", found, expected, fix)

    def _goes_back(self, at_s: float, heard_s: float) -> bool:
        last = self._samples[-1] if self._samples else None
        return last is not None and (at_s < last.at_s or heard_s < last.heard_s)

    def _believes(self, state: Setpoint, at_s: float, heard_s: float) -> bool:
        if not self._samples or not is_usable(state):
            return not self._samples
        last = self._samples[-1]
        passed_s = min(at_s - last.at_s, heard_s - last.heard_s + LATE_S)
        return self._is_within(last.state, state, passed_s)

    def _is_within(self, start: Setpoint, end: Setpoint, passed_s: float) -> bool:
        """Whether the arm can have moved from one to the other."""
        passed_s = max(passed_s, 1e-9)  # not 0: without a limit all is believed
        linear, angular_rad = distance(start, end)
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
