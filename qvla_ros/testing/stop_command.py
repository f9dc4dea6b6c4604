"""Finds the stop among the commands that a robot received, and names it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOVE = "another setpoint"


@dataclass(frozen=True)
class Command:
    """One command to the robot.

    arrived_s: monotonic seconds. stamp_ns: node time; 0: at once, as joint trajectories and
    messages without a stamp are. numbers: position and quaternion, linear and angular velocity, or
    joint positions.
    """

    arrived_s: float
    stamp_ns: int
    numbers: NDArray[np.float64]


def find_stop(commands: Sequence[Command], stop_ns: int) -> int | None:
    """Index of the stop command that the node sent at `stop_ns`; None if the robot received none.

    In simulated time the stop shares its stamp with the commands just before it: it is the first of
    them that does not move the robot. Trajectories and arrays have no stamps: there it is
    the first command that repeats the one before and is followed by no other.
    """
    if commands[-1].stamp_ns:
        sent = [index for index, command in enumerate(commands) if command.stamp_ns == stop_ns]
        last = sent[-1] if sent else None
        return next((index for index in sent if meaning(commands, index) != MOVE), last)
    index = len(commands) - 1
    while index > 0 and meaning(commands, index) != MOVE:
        index -= 1
    return index + 1 if index + 1 < len(commands) else None


def meaning(commands: Sequence[Command], index: int) -> str:
    """What a command asks of the robot: "zero twist", "hold" its last setpoint, or MOVE."""
    numbers = commands[index].numbers
    if not numbers.any():
        return "zero twist"
    return "hold" if index > 0 and np.array_equal(numbers, commands[index - 1].numbers) else MOVE
