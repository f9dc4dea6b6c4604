"""How far the velocities that a robot was sent should have moved it. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.motion import MotionState
from qvla_ros.control.setpoint import Setpoint

Array = NDArray[np.float64]
HELD_S = 0.1  # how long a robot goes on by a velocity when no other comes, at least
HELD_PERIODS = 2.5
KEPT_S = 5.0


class SentVelocities:
    """The velocities of an end effector of the last KEPT_S, each in force until the next.

    A displacement is an array [8]: translation [3], m, and rotation vector [3], rad, along the axes
    of the fixed frame, then the lengths of both ways. Rotation vectors are added up, which is exact
    for turns about one axis and good for those of a second. Times are seconds of one clock.

    period_s: of the commands; a robot goes on by one for longer than that.
    """

    def __init__(self, period_s: float = 0.0) -> None:
        self._held_s = max(HELD_S, HELD_PERIODS * period_s)
        self._times_s: list[float] = []
        self._velocities: list[Array] = []  # [8], per second
        self._travelled: list[Array] = []  # [8], when each came into force

    def clear(self) -> None:
        """The robot rests."""
        self._times_s.clear()
        self._velocities.clear()
        self._travelled.clear()

    def note(self, at_s: float, motion: MotionState) -> None:
        """The velocities of `motion` are in force from now on."""
        linear = motion.linear_velocity
        angular = motion.angular_velocity_rad_s
        lengths = [np.linalg.norm(linear), np.linalg.norm(angular)]
        travelled = self._travelled_by(at_s)
        self._times_s.append(at_s)
        self._velocities.append(np.concatenate([linear, angular, lengths]))
        self._travelled.append(travelled)
        if self._times_s[0] < at_s - 2.0 * KEPT_S:
            old = bisect_right(self._times_s, at_s - KEPT_S)
            del self._times_s[:old], self._velocities[:old], self._travelled[:old]

    def displacement(self, begin_s: float, end_s: float) -> Array:
        """From one time to another, [8]."""
        return self._travelled_by(end_s) - self._travelled_by(begin_s)

    def predicted(self, measured: Setpoint, begin_s: float, end_s: float) -> Setpoint:
        """Where the robot is when it has carried out what it was sent from one time to another.

        measured: a state of the first time, a pose.
        """
        assert measured.quaternion_xyzw is not None
        moved = self.displacement(begin_s, end_s)
        turned = rotation.turn(measured.quaternion_xyzw, moved[3:6])
        return replace(measured, linear=measured.linear + moved[:3], quaternion_xyzw=turned)

    def _travelled_by(self, at_s: float) -> Array:
        index = bisect_right(self._times_s, at_s) - 1
        if index < 0:
            return self._travelled[0] if self._travelled else np.zeros(8)
        lasted_s = min(at_s - self._times_s[index], self._held_s)
        return self._travelled[index] + lasted_s * self._velocities[index]
