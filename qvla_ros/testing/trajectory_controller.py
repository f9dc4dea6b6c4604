"""A model of ros2_controllers' joint_trajectory_controller with a position interface. Pure.

It does what `JointTrajectoryController::update` and `Trajectory::sample` do with messages from its
topic (ros2_controllers 94e74de, August 2026), with joints that follow exactly: cubic interpolation
between points that have velocities, linear between those that have none; a new message replaces the
old one at once; before its first point it is interpolated from the state of the last command; past
its last point the joints stay there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = tuple[Array, Array | None]  # positions and, if they are known, velocities


@dataclass(frozen=True)
class TrajectoryMessage:
    """stamp_s: when it starts, seconds; 0: when the controller first reads it. times_s [K] from
    then on; positions [K, n]; velocities [K, n], or None for positions alone.
    """

    stamp_s: float
    times_s: Array
    positions: Array
    velocities: Array | None = None


class TrajectoryController:
    """The controller, at rest at `position` [n] to begin with.

    period_s: of its updates. from_desired: its parameter interpolate_from_desired_state.
    rejected: why messages were refused.
    """

    def __init__(
        self, position: Array, period_s: float = 0.001, from_desired: bool = False
    ) -> None:
        self.rejected: list[str] = []
        self._period_s = period_s
        self._from_desired = from_desired
        self._commanded: State = (position, np.zeros_like(position))
        self._commanded_s: float | None = None
        self._before: State = self._commanded
        self._before_s = 0.0
        self._message: TrajectoryMessage | None = None
        self._start_s: float | None = None  # None: not sampled yet
        self._time_s = 0.0

    def receive(self, message: TrajectoryMessage, now_s: float) -> None:
        """Takes a message over, at the next update, unless it cannot be carried out."""
        if (np.diff(message.times_s) <= 0.0).any():
            self.rejected.append("times are not strictly increasing")
        elif message.velocities is not None and np.abs(message.velocities[-1]).max() > 1.2e-7:
            self.rejected.append("the last velocity is not zero")
        elif message.stamp_s and message.stamp_s + message.times_s[-1] < now_s:
            self.rejected.append("it ends in the past")
        else:
            self._message = message
            self._start_s = None

    def update(self, now_s: float) -> Array:
        """One cycle; returns the position [n] that goes to the joints, for the end of the cycle."""
        message = self._message
        if message is not None:
            if self._start_s is None:
                self._start_s = message.stamp_s or now_s
                last_s = self._commanded_s if self._from_desired else None
                self._before_s = now_s if last_s is None else last_s
                self._before = self._commanded
                self._time_s = now_s
            else:
                self._time_s += self._period_s
            self._commanded = self._sample(message, self._start_s, self._time_s + self._period_s)
        self._commanded_s = now_s
        return self._commanded[0]

    def _sample(self, message: TrajectoryMessage, start_s: float, time_s: float) -> State:
        after_s = time_s - start_s
        index = int(np.searchsorted(message.times_s, after_s, side="right"))
        if index == len(message.times_s):
            return message.positions[-1], np.zeros_like(message.positions[-1])
        end: State = (message.positions[index], _velocity(message, index))
        if index == 0:
            begin_s = self._before_s - start_s
            begin: State = self._before
        else:
            begin_s = float(message.times_s[index - 1])
            begin = (message.positions[index - 1], _velocity(message, index - 1))
        return interpolated(begin, end, message.times_s[index] - begin_s, after_s - begin_s)


def _velocity(message: TrajectoryMessage, index: int) -> Array | None:
    return None if message.velocities is None else message.velocities[index]


def interpolated(
    begin: State,
    end: State,
    whole_s: float,
    after_s: float,
) -> State:
    """Position and velocity on the cubic between two states, or on the line between two places."""
    share = after_s / whole_s
    way = end[0] - begin[0]
    if begin[1] is None or end[1] is None:
        return begin[0] + share * way, way / whole_s
    first = whole_s * begin[1]
    last = whole_s * end[1]
    bend = 3.0 * way - 2.0 * first - last
    twist = first + last - 2.0 * way
    return (
        begin[0] + share * (first + share * (bend + share * twist)),
        (first + share * (2.0 * bend + 3.0 * share * twist)) / whole_s,
    )
