"""Finds the end of a stop among the commands that a robot received, and names it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOVE = "another setpoint"


@dataclass(frozen=True)
class Command:
    """One command to the robot.

    arrived_s: monotonic seconds. stamp_ns: node time; 0: at once, as arrays are. numbers: position
    and quaternion, linear and angular velocity, or joint positions, of a trajectory the last ones.
    is_trajectory: it says all until rest, and its stamp is before it was sent.
    """

    arrived_s: float
    stamp_ns: int
    numbers: NDArray[np.float64]
    is_trajectory: bool = False


def find_rest(commands: Sequence[Command], stop_ns: int) -> int | None:
    """Index of the command with which a stop came to rest; None if the robot received none.

    stop_ns: when the node sent the first command of the stop. In simulated time that one shares its
    stamp with the commands just before it. The stop ends with the first command from there on that
    does not move the robot. A trajectory is stamped before it is sent, and says all until rest: the
    last that is stamped before. Arrays have no stamps: there it is the first command that repeats
    the one before and is followed by no other.
    """
    if commands[-1].is_trajectory:
        begun = [index for index, command in enumerate(commands) if command.stamp_ns < stop_ns]
        return begun[-1] if begun else None
    if commands[-1].stamp_ns:
        begin = next((i for i, command in enumerate(commands) if command.stamp_ns == stop_ns), None)
        rest = range(0 if begin is None else begin, 0 if begin is None else len(commands))
        return next((index for index in rest if meaning(commands, index) != MOVE), begin)
    index = len(commands) - 1
    while index > 0 and meaning(commands, index) != MOVE:
        index -= 1
    return index + 1 if index + 1 < len(commands) else None


def meaning(commands: Sequence[Command], index: int) -> str:
    """What a command asks of the robot: "zero twist", "hold" its last setpoint, or MOVE."""
    if commands[index].is_trajectory:
        return "hold"  # where it ends
    numbers = commands[index].numbers
    if not numbers.any():
        return "zero twist"
    return "hold" if index > 0 and np.array_equal(numbers, commands[index - 1].numbers) else MOVE


def hardest_braking(commands: Sequence[Command], period_s: float, are_velocities: bool) -> float:
    """The largest change of velocity from one of the commands to the next, along any of the first
    three numbers, in units of those per s^2.

    period_s: between two commands, unless their stamps are further apart.
    """
    stamps_s = 1e-9 * np.array([command.stamp_ns for command in commands])
    apart_s = np.maximum(np.diff(stamps_s), period_s)[:, None]
    numbers = np.array([command.numbers[:3] for command in commands])
    velocities = numbers if are_velocities else np.diff(numbers, axis=0) / apart_s
    changes = np.abs(np.diff(velocities, axis=0)) / apart_s[-len(velocities) + 1 :]
    return float(changes.max()) if changes.size else 0.0
