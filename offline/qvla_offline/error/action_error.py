"""Computes how far a policy's actions are from the float policy's, with the uncertainty.

The error of one observation is ||A' - A||^2: squared differences of normalised actions, summed over
the chunk [K, A]. It has the units of the sensitivities, which estimate it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
COVERED = 95.0  # per cent
_SEED = 0


@dataclass(frozen=True)
class ActionError:
    """Error of one policy over a set of observations, in squared normalised actions a chunk.

    low, high: the 95 % interval of the mean by bootstrap over episodes, or over observations where
    no episode is known; equal to the mean where there is one alone. episodes: None if not known.
    by_dimension: the mean's share of each action dimension, [A].
    """

    mean: float
    low: float
    high: float
    median: float
    maximum: float
    observations: int
    episodes: int | None
    by_dimension: tuple[float, ...]


def action_error(
    actions: np.ndarray, reference: np.ndarray, episodes: Sequence[Hashable] | None = None
) -> ActionError:
    """Computes the error of `actions` [N, K, A] against `reference` [N, K, A].

    episodes: the episode of each observation, [N]. Observations of one episode resemble each other,
    so the interval takes whole episodes at a time.
    """
    squared = np.square(np.asarray(actions, np.float64) - np.asarray(reference, np.float64))
    errors = squared.sum(axis=(1, 2))
    groups = np.arange(len(errors)) if episodes is None else _numbered(episodes)
    low, high = mean_interval(errors, groups)
    return ActionError(
        mean=float(errors.mean()),
        low=low,
        high=high,
        median=float(np.median(errors)),
        maximum=float(errors.max()),
        observations=len(errors),
        episodes=None if episodes is None else int(groups.max()) + 1,
        by_dimension=tuple(squared.sum(axis=1).mean(axis=0).tolist()),
    )


def mean_interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Computes the 95 % interval of the mean of `values` [N] by a bootstrap over `groups`.

    groups: int [N] from 0 on. Groups are drawn with replacement, as many as there are; the mean is
    over all values of those drawn. The same input gives the same interval.
    """
    sums = np.bincount(groups, weights=values)
    sizes = np.bincount(groups).astype(np.float64)
    count = len(sums)
    drawn = np.random.default_rng(_SEED).multinomial(count, [1 / count] * count, size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ sizes)
    outside = (100.0 - COVERED) / 2
    low, high = np.percentile(means, [outside, 100.0 - outside])
    return float(low), float(high)


def _numbered(names: Sequence[Hashable]) -> np.ndarray:
    """Numbers the names 0, 1, ... in the order in which they appear."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
