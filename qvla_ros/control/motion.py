"""The last command and its velocities: what the next one is limited from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.setpoint import Setpoint

Array = NDArray[np.float64]
# m or rad: what lies beyond is no setpoint of any robot, and arithmetic on it would overflow
FARTHEST = 1e6
UNIT_TOLERANCE = 1e-3  # how far a quaternion's length may be from 1 before it is no rotation


@dataclass(frozen=True)
class MotionState:
    """The last command: setpoint and, from the one before, velocity in m/s (or rad/s) [..., n] and
    rad/s [..., 3].

    target: what was asked for when the setpoint came out. The target's own velocity is taken from
    it, so that a target on its way is followed and one that stands still is approached without
    overshoot. None: the next target is meant from where the setpoint is, as deltas are.

    dt_s: the time that the command covers: from the one before, and to the end of the motion that
    it asks for. 0 for a state that no command has led to.
    """

    setpoint: Setpoint
    linear_velocity: Array
    angular_velocity_rad_s: Array
    target: Setpoint | None = None
    dt_s: float = 0.0


def at_rest(setpoint: Setpoint) -> MotionState:
    """The state that a guarantee starts from."""
    batch = setpoint.linear.shape[:-1]
    return MotionState(setpoint, np.zeros(setpoint.linear.shape), np.zeros((*batch, 3)))


def is_usable(target: Setpoint) -> NDArray[np.bool_]:
    """Whether all numbers are finite, not absurd, and the quaternion is a rotation.

    One answer a row of the batch.
    """
    usable = (np.abs(target.linear) <= FARTHEST).all(axis=-1)  # false for nan
    if target.quaternion_xyzw is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            length = rotation.length(target.quaternion_xyzw)[..., 0]
            usable = usable & (np.abs(length - 1.0) <= UNIT_TOLERANCE)
    return usable if target.gripper is None else usable & np.isfinite(target.gripper)
