"""Turns the graph's outputs into a robot's units, and into LIBERO's conventions (numpy)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.preprocess import RANGE_EPSILON
from qvla_ros.specifications import ActionSpec, GripperConvention, Statistics

Actions = NDArray[np.float64]

NUM_BINS = 256  # of OpenVLA's action tokens
ENSEMBLE_DECAY = 0.1  # a control period


def token_actions(tokens: ArrayLike, vocabulary: int, num_bins: int = NUM_BINS) -> Actions:
    """Turns OpenVLA's action tokens, of any shape, into normalised actions.

    They are the centres of the `num_bins` - 1 equal bins of [-1, 1].

    The last token of the vocabulary is the lowest bin, tokens before it the higher ones; all others
    are clipped to the two ends. vocabulary: one past the last action token (32000 for Llama-2).
    """
    edges = np.linspace(-1.0, 1.0, num_bins)
    centers = (edges[:-1] + edges[1:]) / 2.0
    return centers[np.clip(vocabulary - np.asarray(tokens) - 1, 0, num_bins - 2)]


def unnormalize(
    normalized: ArrayLike, statistics: Statistics, epsilon: float = RANGE_EPSILON
) -> Actions:
    """0.5 (x + 1) (high - low + epsilon) + low where the mask is set, else x. [..., A] -> float64
    [..., A].

    OpenVLA-OFT adds 1e-8 to the range; OpenVLA and UniVLA do not (epsilon = 0).
    """
    normalized = np.asarray(normalized, np.float64)
    span = statistics.high - statistics.low + epsilon
    return np.where(statistics.mask, 0.5 * (normalized + 1.0) * span + statistics.low, normalized)


def ensemble(chunks: Sequence[ArrayLike]) -> Actions:
    """Averages what the last chunks hold for now, with UniVLA's weights; float64 [A].

    chunks: [K, A] each, one a control period, the newest first. The chunk of i periods ago has its
    i-th action for now, and its weight is exp(-0.1 i).
    """
    planned = np.array([np.asarray(chunk, np.float64)[age] for age, chunk in enumerate(chunks)])
    return np.average(planned, axis=0, weights=np.exp(-ENSEMBLE_DECAY * np.arange(len(planned))))


def opening_fraction(gripper: ArrayLike, convention: GripperConvention) -> Actions:
    """A model's gripper column as opening fraction: 0 closed, 1 open.

    Not clipped; see qvla_ros.safety.
    """
    gripper = np.asarray(gripper, np.float64)
    if convention == "closing_fraction":  # 0 open, 1 closed
        return 1.0 - gripper
    if convention == "signed_closing":  # -1 open, +1 closed
        return 0.5 * (1.0 - gripper)
    return gripper


def robot_actions(
    normalized: ArrayLike, spec: ActionSpec, statistics: Statistics, epsilon: float = RANGE_EPSILON
) -> Actions:
    """Normalised actions [K, A] in the units of the specification, the gripper as opening fraction.

    Float64 [K, A].

    epsilon: see unnormalize.
    """
    actions = unnormalize(normalized, statistics, epsilon)
    if spec.gripper_index is not None and spec.gripper_convention is not None:
        column = spec.gripper_index
        actions[:, column] = opening_fraction(actions[:, column], spec.gripper_convention)
    return actions


def libero_gripper(opening: ArrayLike) -> Actions:
    """Turns an opening fraction into LIBERO's gripper command.

    It is -1 (open) above one half, +1 (close) below, 0 at one half.
    """
    return -np.sign(2.0 * np.asarray(opening, np.float64) - 1.0)


def libero_action(action: ArrayLike) -> Actions:
    """One action of a chunk (six OSC_POSE deltas, opening fraction) as LIBERO's step() takes it.

    Float64 [7].
    """
    action = np.array(action, np.float64)
    action[6] = libero_gripper(action[6])
    return action


def quaternion_to_axis_angle(quaternion_xyzw: ArrayLike) -> Actions:
    """Unit quaternion (x, y, z, w) -> rotation vector in radians, float64 [3], of length 0 to 2 pi.

    This is robosuite's convention, which the released LIBERO data use: w < 0 gives an angle above
    pi, it is not turned to the shorter way round. Policies are trained on it, so do not "fix" it.
    """
    x, y, z, w = (float(value) for value in np.asarray(quaternion_xyzw, np.float64))
    w = min(1.0, max(-1.0, w))
    sine = math.sqrt(1.0 - w * w)
    if sine == 0.0:
        return np.zeros(3)
    return np.array([x, y, z]) * (2.0 * math.acos(w)) / sine
