"""Limits on what is commanded: pure functions on chunks, float64 [K, A].

Software limits, not a certified function.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError

Actions = NDArray[np.float64]


def action_limits(bundle: Bundle) -> tuple[Actions, Actions]:
    """Returns the limits (low, high), each [A], in the actions' units.

    They are the bundle's limits, or else the range of the training data.
    """
    spec = bundle.actions
    if spec.limits is not None:
        low, high = np.array(spec.limits, np.float64).T
        return low, high
    low = bundle.statistics["action"].min.copy()
    high = bundle.statistics["action"].max.copy()
    if spec.gripper_index is not None:
        low[spec.gripper_index] = 0.0
        high[spec.gripper_index] = 1.0
    return low, high


def require_finite(actions: Actions, what: str) -> None:
    """Raises QvlaError, naming the first culprit, unless every number is finite.

    A chunk is dropped whole, never in part.
    """
    if not np.isfinite(actions).all():
        where = np.argwhere(~np.isfinite(actions))[0].tolist()
        fix = "do not run this bundle: check its graph with `qvla eval` and export it again"
        raise QvlaError(what, f"{actions[tuple(where)]} at {where}", "finite numbers only", fix)


def clip_to_limits(
    actions: Actions, low: Actions, high: Actions
) -> tuple[Actions, NDArray[np.int64]]:
    """(clipped actions, how many entries of each column were changed [A])."""
    clipped = np.clip(actions, low, high)
    return clipped, np.count_nonzero(clipped != actions, axis=0)
