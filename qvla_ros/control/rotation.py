"""Rotations as unit quaternions (x, y, z, w) and rotation vectors (radians), over any leading axes; float64.

Rotation vectors are given in the fixed frame: `turn(q, r)` turns q by |r| about the fixed axis r.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])
TINY = 1e-300  # keeps a division by a length of 0 finite; what it is multiplied with is 0 then


def length(vector: Array) -> Array:
    """Euclidean, [..., n] -> [..., 1]. Several times as fast as np.linalg.norm over a short last axis."""
    return np.sqrt(np.einsum("...i,...i->...", vector, vector))[..., None]


def multiply(left: Array, right: Array) -> Array:
    """Hamilton product [..., 4]: the rotation `right` first, then `left`, both about fixed axes."""
    x, y, z, w = left[..., 0], left[..., 1], left[..., 2], left[..., 3]
    a, b, c, d = right[..., 0], right[..., 1], right[..., 2], right[..., 3]
    product = np.empty(np.broadcast_shapes(left.shape, right.shape))
    product[..., 0] = w * a + x * d + y * c - z * b
    product[..., 1] = w * b - x * c + y * d + z * a
    product[..., 2] = w * c + x * b - y * a + z * d
    product[..., 3] = w * d - x * a - y * b - z * c
    return product


def inverse(quaternion: Array) -> Array:
    """Of unit quaternions [..., 4]."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def normalize(quaternion: Array) -> Array:
    """Scaled to length 1. [..., 4]; the length must not be 0."""
    return quaternion / length(quaternion)


def from_rotation_vector(vector_rad: ArrayLike) -> Array:
    """[..., 3] -> [..., 4]. Angles above pi are taken as they are: 2 pi - a about -r is the same rotation."""
    vector = np.asarray(vector_rad, np.float64)
    half = 0.5 * length(vector)
    sinc = np.where(half > 0.0, np.sin(half) / np.maximum(half, TINY), 1.0)
    return np.concatenate([0.5 * sinc * vector, np.cos(half)], axis=-1)


def to_rotation_vector(quaternion_xyzw: Array) -> Array:
    """[..., 4] -> [..., 3], the short way round: length 0 to pi.

    Not qvla_ros.actions.quaternion_to_axis_angle, which goes up to 2 pi because policies were trained on that.
    """
    axis, cosine = quaternion_xyzw[..., :3], quaternion_xyzw[..., 3:]
    sine = length(axis)
    angle = 2.0 * np.arctan2(sine, np.abs(cosine))
    return axis * np.copysign(np.where(sine > 0.0, angle / np.maximum(sine, TINY), 2.0), cosine)


def between(start: Array, end: Array) -> Array:
    """The rotation vector [..., 3] that takes `start` to `end`, the short way round."""
    return to_rotation_vector(multiply(end, inverse(start)))


def turn(quaternion: Array, vector_rad: ArrayLike) -> Array:
    """`quaternion` turned by a rotation vector about fixed axes, kept at length 1. [..., 4]"""
    return normalize(multiply(from_rotation_vector(vector_rad), quaternion))


def slerp(start: Array, end: Array, fraction: ArrayLike) -> Array:
    """That fraction of the short way from `start` to `end`, at constant angular velocity. [..., 4]"""
    return turn(start, np.asarray(fraction, np.float64)[..., None] * between(start, end))
