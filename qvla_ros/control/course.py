"""The course: where the joints of a robot were told to be, and how fast, as a function of time.

A trajectory is sent ahead of its time, so that late ticks and late messages do not reach the robot,
and with a tail that brakes to rest, so that the robot brakes when nothing more comes.

What lies between commands keeps the limits too. Commands one period T apart are taken as the
control points of a uniform quadratic B-spline: the course passes through p - v T / 2 with velocity
v half a period before each command p, where v = (p - previous p) / T. Between two such knots the
acceleration is constant and equal to the change of v in T, which is what the safety chain limits;
and the course stays within the hull of the commands, so within the box. Cubic interpolation
between points with velocities, as joint_trajectory_controller does it, reproduces it exactly,
whatever part of it a message holds.

The tail brakes each joint from the last knot by the limit on acceleration a, for it is often only a
message that is late; a stop brakes by its own deceleration, which is no less. Both stay in the box:
the safety chain leaves room for T (v - A) + T (v - 2 A) + ... beyond p, A = a T, and what the tail
needs there, v² / 2 a - v T / 2, is no more than that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control.limits import MotionLimits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.setpoint import Setpoint

Array = NDArray[np.float64]
APART_S = 5e-4  # of two points of a message: shorter pieces cannot be told apart at 1 kHz
JOIN_S = 0.25  # in which a robot goes from what it holds to where it was measured, at least
FIXED_SHARE = 0.5  # of the look-ahead
EARLY = 0.5  # of a period: how much sooner than due a command is planned, as ticks do not come even


@dataclass(frozen=True)
class Trajectory:
    """The part of a course that a message holds: times s [K], rising, 0 is when it is sent, the
    first a period before that, or when the course begins; positions [K, n], rad or m; velocities
    [K, n], the last ones 0.
    """

    times_s: Array
    positions: Array
    velocities: Array


class Course:
    """See the module. Times are seconds of the robot's clock. Not thread-safe.

    limits: of any motion; braking: of a stop, see stop_limits. look_ahead_s: how far ahead of its
    time the course is planned. fixed_share: of that, the share that is never changed once it was
    sent, because a message needs time to arrive. even_tail: the points of the tail are a period
    apart, for robots that take the straight line between two points; else there are as few as cubic
    interpolation needs.
    """

    def __init__(
        self,
        limits: MotionLimits,
        braking: MotionLimits,
        period_s: float,
        look_ahead_s: float,
        even_tail: bool = False,
        fixed_share: float = FIXED_SHARE,
    ) -> None:
        self.look_ahead_s = look_ahead_s
        self.period_s = period_s
        self._even_tail = even_tail
        self._fixed_s = fixed_share * look_ahead_s
        self._low = limits.linear_low
        self._high = limits.linear_high
        self._velocity = limits.max_linear_velocity
        self._acceleration = limits.max_linear_acceleration
        self._stop_deceleration = braking.max_linear_acceleration
        self._deceleration = self._acceleration  # of the tail
        self._times_s: list[float] = []
        self._positions: list[Array] = []
        self._velocities: list[Array] = []

    def begin(self, setpoint: Setpoint, now_s: float) -> None:
        """At rest from JOIN_S from now on, or later. Until then the robot goes there from what it
        was holding, which need not be where it is measured.
        """
        join_s = self._join_s(setpoint)
        self._deceleration = self._acceleration
        self._times_s.clear()
        self._positions.clear()
        self._velocities.clear()
        self._add(now_s + join_s, setpoint.linear, np.zeros_like(setpoint.linear))

    def _join_s(self, setpoint: Setpoint) -> float:
        """How long the way takes from where the last course ended, if there was one: the robot
        takes it as a cubic from rest to rest, whose velocity and acceleration are to be in limits.
        """
        if not self._times_s:
            return JOIN_S
        held, _ = self.at(np.inf)
        way = np.abs(setpoint.linear - held)
        by_velocity = 1.5 * way / self._velocity
        by_acceleration = np.sqrt(6.0 * way / self._acceleration)
        return float(max(JOIN_S, by_velocity.max(), by_acceleration.max()))

    def resumed(self, motion: MotionState, now_s: float) -> MotionState:
        """The last command, or, when the robot is about to brake because none came in time, the
        state in which it will be when it can hear of the next one.
        """
        fixed_s = now_s + self._fixed_s
        return motion if fixed_s <= self._times_s[-1] else self._cut(motion, fixed_s)

    def due_s(self, now_s: float) -> Iterator[float]:
        """The times of the commands that are to be planned now; each is to be `extend`ed by."""
        while self._times_s[-1] + (1.0 - EARLY) * self.period_s <= now_s + self.look_ahead_s:
            yield self._times_s[-1] + 1.5 * self.period_s

    def extend(self, time_s: float, motion: MotionState) -> None:
        """Plans one command more, which `due_s` asked for."""
        half_s = 0.5 * self.period_s
        velocity = motion.linear_velocity
        self._add(time_s - half_s, motion.setpoint.linear - half_s * velocity, velocity)

    def stop(self, motion: MotionState, now_s: float) -> MotionState:
        """Brakes as soon as the robot can hear of it. Returns where it comes to rest.

        A robot that brakes already, because ticks came late, goes on from where it then is.
        """
        self._cut(motion, max(now_s + self._fixed_s, self._times_s[0]))
        self._deceleration = self._stop_deceleration
        rest, _ = self.at(np.inf)
        return at_rest(replace(motion.setpoint, linear=rest))

    def shift(self, by_s: float) -> None:
        """Moves the course with a clock that was set; the robot is where it was."""
        self._times_s = [time_s + by_s for time_s in self._times_s]

    def rests_after_s(self, now_s: float) -> float:
        """How long it takes until nothing is left of it but to stay."""
        return max(self._rests_s()[-1] - now_s, 0.0)

    def at(self, time_s: float) -> tuple[Array, Array]:
        """Position and velocity [n] at one moment; before the course begins, where it begins."""
        index = bisect_right(self._times_s, time_s) - 1
        if index < 0:
            return self._positions[0], np.zeros_like(self._positions[0])
        position = self._positions[index]
        velocity = self._velocities[index]
        after_s = time_s - self._times_s[index]
        if index == len(self._times_s) - 1:
            return braking(position, velocity, self._deceleration, after_s)
        whole_s = self._times_s[index + 1] - self._times_s[index]
        gained = (self._velocities[index + 1] - velocity) * (after_s / whole_s)
        return position + (velocity + 0.5 * gained) * after_s, velocity + gained

    def ahead(self, now_s: float) -> Trajectory:
        """The course from a period ago to rest.

        It begins in the past, so that the robot's controller finds itself within it and has nothing
        to interpolate by itself, but for the way to where it begins. Forgets what was before.
        """
        begin_s = max(now_s - self.period_s, self._times_s[0])
        self._forget(begin_s)
        known = bisect_right(self._times_s, begin_s)
        times_s = _apart([begin_s, *self._times_s[known:], *self._rests_s()])
        states = [self.at(time_s) for time_s in times_s]
        velocities = np.array([velocity for _, velocity in states])
        velocities[-1] = 0.0  # to the last bit, which the robot's controller may insist on
        positions = np.array([position for position, _ in states])
        return Trajectory(np.array(times_s) - now_s, positions, velocities)

    def _rests_s(self) -> list[float]:
        """When joints come to rest on the tail, or even times until all are; not empty."""
        after_s = np.unique(np.abs(self._velocities[-1]) / self._deceleration)
        if self._even_tail:
            after_s = self.period_s * np.arange(1.0, after_s[-1] / self.period_s + 1.0)
        rests_s = [self._times_s[-1] + after for after in after_s.tolist() if after > 1e-6]
        return rests_s or [self._times_s[-1] + self.period_s]

    def _cut(self, motion: MotionState, time_s: float) -> MotionState:
        """Forgets what was planned for after `time_s`; returns the command from which to go on."""
        on_tail_s = [rest_s for rest_s in self._rests_s() if rest_s < time_s]
        states = [(each_s, *self.at(each_s)) for each_s in (*on_tail_s, time_s)]
        kept = bisect_right(self._times_s, time_s)
        del self._times_s[kept:], self._positions[kept:], self._velocities[kept:]
        for state in states:
            if state[0] > self._times_s[-1]:
                self._add(*state)
        _, position, velocity = states[-1]
        command = np.clip(position + 0.5 * self.period_s * velocity, self._low, self._high)
        setpoint = replace(motion.setpoint, linear=command)
        return replace(motion, setpoint=setpoint, linear_velocity=velocity)

    def _add(self, time_s: float, position: Array, velocity: Array) -> None:
        self._times_s.append(time_s)
        self._positions.append(position)
        self._velocities.append(velocity)

    def _forget(self, before_s: float) -> None:
        """Drops the knots of which none is needed to know the course from `before_s` on."""
        old = max(bisect_right(self._times_s, before_s) - 1, 0)
        del self._times_s[:old], self._positions[:old], self._velocities[:old]


def _apart(times_s: list[float]) -> list[float]:
    """Rising times, without those that the next one comes too soon after; the last one stays."""
    following = (*times_s[1:], np.inf)
    pairs = zip(times_s, following, strict=True)
    return [time_s for time_s, next_s in pairs if next_s - time_s > APART_S]


def braking(
    position: Array, velocity: Array, deceleration: Array, after_s: float
) -> tuple[Array, Array]:
    """Position and velocity [n] of joints that have braked for `after_s`, each by its own."""
    whole_s = np.abs(velocity) / deceleration
    left = 1.0 - np.minimum(after_s / np.maximum(whole_s, 1e-12), 1.0)
    return position + 0.5 * velocity * whole_s * (1.0 - left**2), velocity * left
