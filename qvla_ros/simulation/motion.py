"""Measures how smoothly an arm was commanded."""

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
