"""The figures that every table prints: how sure a success rate is, and how long things took."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval (low, high) of a success rate, as fractions.

    Z = 1.96 covers 95 %. No trials: (0, 1).

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212. Unlike the normal interval it stays
    inside [0, 1] and keeps a width at 0 and at 100 %.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0..trials, got {successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    z2 = z * z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half_width = (
        z / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    )
    # At the ends the bound is the rate itself; the formula gives it only up to rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half_width)
    high = 1.0 if successes == trials else min(1.0, centre + half_width)
    return low, high


def percentiles(values: ArrayLike, percents: Sequence[float] = (50, 99)) -> tuple[float, ...]:
    """Returns percentiles of `values`, linearly interpolated; NaN each if there are no values."""
    array = np.asarray(values, np.float64).ravel()
    if array.size == 0:
        return (math.nan,) * len(percents)
    return tuple(float(value) for value in np.percentile(array, list(percents)))
