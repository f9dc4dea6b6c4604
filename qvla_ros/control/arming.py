"""Refuses to arm a robot, by name, while anything would stop it at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qvla_ros.control.limits import MotionLimits
from qvla_ros.control.motion import is_usable
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.watchdogs import Deadman, is_stale
from qvla_ros.errors import QvlaError

# How far outside a wall an arm may be measured that is at it: what noise does to a pose; m or rad.
WALL_NOISE = 0.002
FIX = "see to it, then call ~/arm again"


def usable_start(measured: Setpoint | None, spec: MotionSpec, limits: MotionLimits) -> Setpoint:
    """Returns `measured` itself.

    QvlaError if there is none, it cannot be used, or it lies outside the box, by more than noise.
    """
    if measured is None or not is_usable(measured):
        expected = "a fresh measured state, finite, its quaternion of length 1"
        value = "none" if measured is None else measured
        raise QvlaError("arm", value, expected, f"start the robot's driver; {FIX}")
    axes = limits.linear_low.shape
    is_pose = measured.quaternion_xyzw is not None
    if measured.linear.shape != axes or spec.is_pose != is_pose:
        value = f"{measured.linear.shape[0]} axes, orientation: {is_pose}"
        expected = f"{axes[0]} axes, orientation: {spec.is_pose}"
        fix = "correct the parameter joints, or the limits"
        raise QvlaError("arm: measured state", value, expected, fix)
    _require_inside(measured, limits)
    return measured


def _require_inside(measured: Setpoint, limits: MotionLimits) -> None:
    at = measured.linear
    low = limits.linear_low - WALL_NOISE
    high = limits.linear_high + WALL_NOISE
    outside = np.flatnonzero((at < low) | (at > high))
    if outside.size:
        axis = int(outside[0])
        value = f"{at[axis]:.6g} on axis {axis}"
        ends = f"{limits.linear_low[axis]:.6g} to {limits.linear_high[axis]:.6g}"
        expected = f"{ends}, by linear_low and linear_high, give or take {WALL_NOISE:g}"
        fix = "move the arm inside by other means, or correct the two; then call ~/arm again"
        raise QvlaError("arm: measured state", value, expected, fix)


def inside_box(start: Setpoint, limits: MotionLimits) -> Setpoint:
    """The nearest place inside the box, which no command leaves."""
    return replace(start, linear=np.clip(start.linear, limits.linear_low, limits.linear_high))


def require_fresh_input(input_ns: int | None, now_ns: int, settings: ControllerSettings) -> None:
    """Raises QvlaError unless an observation came within max_image_age_s."""
    if is_stale(input_ns, now_ns, settings.max_image_age_s):
        expected = "an observation (images, joint states, pose) within max_image_age_s"
        fix = f"start the cameras and the robot's driver; {FIX}"
        raise QvlaError("arm", "no fresh observation", expected, fix)


def require_deadman(deadman: Deadman, steady_s: float, settings: ControllerSettings) -> None:
    """Raises QvlaError if there is a deadman that is not held. steady_s: of the last tick."""
    timeout_s = settings.deadman_timeout_s
    if timeout_s > 0.0 and not deadman.is_held(steady_s, timeout_s):
        raise QvlaError("arm", "the deadman is not held", "~/enable true", f"hold it; {FIX}")


def require_ready(is_ready: bool, settings: ControllerSettings) -> None:
    """Raises QvlaError unless the robot says that it takes commands, where it is asked for that."""
    if settings.needs_ready and not is_ready:
        value = "no true heard on ready_topic"
        fix = "start the robot's driver, and its program if it has one; then call ~/arm again"
        raise QvlaError("arm", value, "a robot that says that it takes commands", fix)
