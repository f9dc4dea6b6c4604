"""Compares the robot's own state with the range of it that a policy was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

Array = NDArray[np.float64]
TURN_NAMES = ("eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z")
# Beyond the range by this share of its width, plus so many m or rad, a policy has seen nothing like
# it: the range is that of most of the training data, and demonstrations differ.
FAR_SHARE = 0.5
FAR = 0.05


def nearest_orientation(names: Sequence[str], values: Array, low: Array, high: Array) -> Array:
    """The state [P] with its rotation vector as the training data write it.

    A quaternion and its negative are one orientation, but two rotation vectors: a, and the one of
    length 2 pi - |a| in the other direction. Drivers differ in which they publish, and may change
    from one to the other. Taken is the one that lies less far outside the range; as it came where
    both do alike.
    """
    if not set(TURN_NAMES) <= set(names):
        return values
    columns = [names.index(name) for name in TURN_NAMES]
    vector = values[columns]
    length = float(np.linalg.norm(vector))
    if length == 0.0:
        return values
    other = values.copy()
    other[columns] = vector * (1.0 - 2.0 * math.pi / length)
    distances = [np.linalg.norm(_outside(each, low, high)[columns]) for each in (values, other)]
    return other if distances[1] < distances[0] else values


def require_known_state(names: Sequence[str], values: Array, low: Array, high: Array) -> None:
    """Raises QvlaError where a number lies far outside the range; it names the farthest."""
    allowed = FAR_SHARE * (high - low) + FAR
    beyond = _outside(values, low, high) - allowed
    farthest = int(np.argmax(beyond))
    if beyond[farthest] > 0.0:
        value = f"{names[farthest]} {values[farthest]:.4g}"
        expected = (
            f"about {low[farthest]:.4g} to {high[farthest]:.4g}, as in the policy's training data"
        )
        fix = (
            "move the arm to where the demonstrations were; if it is there, the units, the frame "
            "or the joint's name differ from theirs; to arm all the same: "
            "-p require_known_state:=false"
        )
        raise QvlaError("arm: the robot's state", value, expected, fix)


def _outside(values: Array, low: Array, high: Array) -> Array:
    return np.maximum(np.maximum(low - values, values - high), 0.0)
