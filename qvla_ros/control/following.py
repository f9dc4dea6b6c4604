"""Whether a robot that is sent velocities moves as it is told. Pure.

It is told only how fast to move, so one that stands still, goes the other way or much too fast is
commanded on for ever; only the way that it made can tell. Over a window, the measured displacement
must be near the one that was sent, at some time between at once and `latest_s` later: how late a
robot moves is not known exactly.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.sent_velocities import SentVelocities
from qvla_ros.control.setpoint import Setpoint

Array = NDArray[np.float64]
# How far the displacement may be from what was sent: a share of the way, and what controllers and
# sensors are wrong by, m and rad.
SHARE = 0.5
NOISE_LINEAR = 0.005
NOISE_ANGULAR_RAD = 0.03
LATEST_S = 0.2  # beyond the reaction time
LATENESS_S = 0.02  # steps in which lateness is looked for


class _Sample(NamedTuple):
    at_s: float
    state: Setpoint


class Following:
    """Compares measured poses with the velocities sent. Times are seconds of one clock.

    window_s: over how long; 0: all passes. latest_s: the longest lateness that is looked for.
    """

    def __init__(self, sent: SentVelocities, window_s: float, reaction_s: float) -> None:
        self._sent = sent
        self._window_s = window_s
        self._lateness_s = np.arange(0.0, reaction_s + LATEST_S + LATENESS_S, LATENESS_S).tolist()
        self._samples: deque[_Sample] = deque()

    def clear(self) -> None:
        """Begins anew."""
        self._samples.clear()

    def note(self, at_s: float, measured: Setpoint) -> bool:
        """Adds a measured pose; whether the robot follows, as far as is known."""
        if self._window_s == 0.0:
            return True
        self._samples.append(_Sample(at_s, measured))
        while len(self._samples) > 1 and self._samples[1].at_s <= at_s - self._window_s:
            self._samples.popleft()
        first = self._samples[0]
        if first.at_s > at_s - self._window_s:
            return True
        moved = _displacement(first.state, measured)
        return any(
            _is_near(moved, self._sent.displacement(first.at_s - late_s, at_s - late_s))
            for late_s in self._lateness_s
        )


def _is_near(moved: Array, sent: Array) -> bool:
    linear = np.linalg.norm(moved[:3] - sent[:3])
    angular = np.linalg.norm(moved[3:] - sent[3:6])
    return bool(
        linear <= SHARE * sent[6] + NOISE_LINEAR and angular <= SHARE * sent[7] + NOISE_ANGULAR_RAD
    )


def _displacement(start: Setpoint, end: Setpoint) -> Array:
    """Translation and rotation vector, [6]."""
    assert start.quaternion_xyzw is not None
    assert end.quaternion_xyzw is not None
    turned = rotation.between(start.quaternion_xyzw, end.quaternion_xyzw)
    return np.concatenate([end.linear - start.linear, turned])
