"""Computes how fast a command may go and still come to rest at a wall, or at its target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation

Array = NDArray[np.float64]
ENDLESS = 1e150  # stands for infinity where that would meet a zero


def braking_speed(distance: Array, change: Array | float, dt_s: float) -> Array:
    """The highest velocity of a command that leaves room to come to rest within `distance` >= 0.

    change: by how much the velocity may change per command. With n = floor(v / change) more
    commands on the way to rest, distance = dt ((n + 1) v - change n (n + 1) / 2), solved for v.
    """
    distance = np.minimum(distance, ENDLESS)
    change = np.minimum(change, ENDLESS)
    commands = np.floor(0.5 * (np.sqrt(1.0 + 8.0 * distance / (change * dt_s)) - 1.0))
    return distance / (dt_s * (commands + 1.0)) + 0.5 * change * commands


def approach_speed(distance: Array, change: Array | float, dt_s: float, reaction_s: float) -> Array:
    """The highest velocity towards a wall at `distance` of a robot that reacts `reaction_s` late.

    distance = v reaction_s + v² / 2 a, a = change / dt_s: near the wall it slows down in proportion
    to the distance, so that a robot that is later than expected does not hunt there. Below 0, where
    the robot is beyond the wall, it is the velocity of the way back.
    """
    before = np.minimum(np.maximum(distance, 0.0), ENDLESS)
    acceleration = np.minimum(change, ENDLESS) / dt_s
    speed = 2.0 * before / (reaction_s + np.sqrt(reaction_s**2 + 2.0 * before / acceleration))
    return speed + np.minimum(distance, 0.0) / reaction_s


def preferred(
    direct: Array, behind: Array, distance: Array, change: Array | float, dt_s: float
) -> Array:
    """`direct`, which arrives at once, less the speed at which the target could not be stopped at.

    behind: from the setpoint to where the target was expected; distance: its length, along one axis
    or over all three.
    """
    too_fast = distance / dt_s - braking_speed(distance, change, dt_s)
    return direct - behind * (too_fast / np.maximum(distance, rotation.TINY))
