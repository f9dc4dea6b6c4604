"""Brings the command to rest: the one mechanism of every stop.

A stop begins at the last command and its velocity, never at a measurement, which may be what
failed. Each tick sends one more command, slower by no more than the deceleration of a stop allows,
through the same limits as any command and inside the box, until the command is at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from qvla_ros.control.course import Course
from qvla_ros.control.limits import MotionLimits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import limit_motion
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason

STILL = 1e-9  # m/s or rad/s: what is slower is rounding


@dataclass(frozen=True)
class Stop:
    """A stop from its decision until it is over.

    passed_s: when its limit was passed or its cause happened, steady clock. yields_to: where the
    command goes once it is at rest, None: it stays. is_announced: its first command is sent.
    is_at_rest: it has braked to rest. rests_s: of motion that is sent ahead, when it will have,
    steady clock.
    """

    reason: StopReason
    passed_s: float
    yields_to: Setpoint | None = None
    is_announced: bool = False
    is_at_rest: bool = False
    rests_s: float = math.inf


def advance_stop(
    stop: Stop, motion: MotionState, braking: MotionLimits, limits: MotionLimits, dt_s: float
) -> tuple[MotionState, Stop | None]:
    """The next command of a stop, dt_s after `motion`, and what is left of the stop; None: nothing.

    braking: limits with the deceleration of a stop for the acceleration. limits: of any motion, for
    the way to where it yields to. The gripper stays as it was commanded.
    """
    at = motion.setpoint
    if not stop.is_at_rest:
        slower, _ = limit_motion(at, replace(motion, target=None), braking, dt_s)
        if not _is_still(slower):
            return slower, replace(stop, is_announced=True)
        left = replace(stop, is_announced=True, is_at_rest=True)
        return at_rest(at), None if stop.yields_to is None else left
    assert stop.yields_to is not None
    closer, _ = limit_motion(replace(stop.yields_to, gripper=at.gripper), motion, limits, dt_s)
    return (at_rest(closer.setpoint), None) if _is_still(closer) else (closer, stop)


def advance_stop_ahead(
    stop: Stop,
    motion: MotionState,
    course: Course,
    braking: MotionLimits,
    limits: MotionLimits,
    robot_s: float,
    steady_s: float,
) -> tuple[MotionState | None, Stop | None]:
    """The same for motion that is sent ahead: what the course now ends with, None if that is no
    news, and what is left of the stop.

    The first message says all until rest. Others follow only on the way to where the stop yields.
    """
    if not stop.is_announced:
        rest = course.stop(motion, robot_s)
        rests_s = steady_s + course.rests_after_s(robot_s)
        return rest, replace(stop, is_announced=True, rests_s=rests_s)
    if not stop.is_at_rest:
        if steady_s < stop.rests_s:
            return None, stop
        return None, None if stop.yields_to is None else replace(stop, is_at_rest=True)
    left: Stop | None = stop
    motion = course.resumed(motion, robot_s)
    for time_s in course.due_s(robot_s):
        motion, left = advance_stop(stop, motion, braking, limits, course.period_s)
        course.extend(time_s, motion)
        if left is None:
            break
    return motion, left


def slowed(motion: MotionState, braking: MotionLimits, late_s: float) -> MotionState:
    """The last command as if a stop had braked it for `late_s` > 0 already, where it is.

    So limits on how suddenly commands slow down hold in time, also where none was sent.
    """
    lost = braking.max_linear_acceleration * late_s
    speed = np.maximum(np.abs(motion.linear_velocity) - lost, 0.0)
    turn = motion.angular_velocity_rad_s
    rate = float(np.linalg.norm(turn))
    left = max(rate - braking.max_angular_acceleration_rad_s2 * late_s, 0.0)
    return replace(
        motion,
        linear_velocity=np.copysign(speed, motion.linear_velocity),
        angular_velocity_rad_s=turn * (left / rate) if rate > 0.0 else turn,
    )


def _is_still(motion: MotionState) -> bool:
    speeds = np.concatenate([motion.linear_velocity, motion.angular_velocity_rad_s])
    return bool(np.abs(speeds).max() <= STILL)
