"""Measures how an arm was moved: how smoothly, how far, how often its gripper turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def rms_jerk_m_s3(positions_m: ArrayLike, period_s: float) -> float | None:
    """Root mean square of the third difference of positions [T, 3], one every `period_s`.

    None for fewer than four positions.
    """
    positions = np.asarray(positions_m, np.float64)
    if len(positions) < 4:
        return None
    jerk = np.diff(positions, n=3, axis=0) / period_s**3
    return float(np.sqrt(np.mean(np.sum(jerk**2, axis=1))))


def path_length_m(positions_m: ArrayLike) -> float:
    """Length of the way through positions [T, 3]."""
    steps = np.diff(np.asarray(positions_m, np.float64), axis=0)
    return float(np.linalg.norm(steps, axis=1).sum())


def gripper_flips(commands: ArrayLike) -> int:
    """How often commands [T], above 0 to close and below to open, change their sign.

    A command of 0 asks for neither and is passed over.
    """
    signs = np.sign(np.asarray(commands, np.float64))
    return int(np.count_nonzero(np.diff(signs[signs != 0])))
