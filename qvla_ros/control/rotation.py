"""Rotations as unit quaternions (x, y, z, w) and rotation vectors (radians), over any leading axes; float64.

Rotation vectors are given in the fixed frame: `turn(q, r)` turns q by |r| about the fixed axis r.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


def multiply(left: Array, right: Array) -> Array:
    """Hamilton product [..., 4]: the rotation `right` first, then `left`, both about fixed axes."""
    x, y, z, w = np.moveaxis(left, -1, 0)
    a, b, c, d = np.moveaxis(right, -1, 0)
    product = (
        w * a + x * d + y * c - z * b,
        w * b - x * c + y * d + z * a,
        w * c + x * b - y * a + z * d,
        w * d - x * a - y * b - z * c,
    )
    return np.stack(product, axis=-1)


def inverse(quaternion: Array) -> Array:
    """Of unit quaternions [..., 4]."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def normalize(quaternion: Array) -> Array:
    """Scaled to length 1. [..., 4]; the length must not be 0."""
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)


def from_rotation_vector(vector_rad: ArrayLike) -> Array:
    """[..., 3] -> [..., 4]. Angles above pi are taken as they are: 2 pi - a about -r is the same rotation."""
    vector = np.asarray(vector_rad, np.float64)
    half = 0.5 * np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.concatenate([0.5 * vector * np.sinc(half / np.pi), np.cos(half)], axis=-1)


def to_rotation_vector(quaternion_xyzw: Array) -> Array:
    """[..., 4] -> [..., 3], the short way round: length 0 to pi.

    Not qvla_ros.actions.quaternion_to_axis_angle, which goes up to 2 pi because policies were trained on that.
    """
    short = np.where(quaternion_xyzw[..., 3:] < 0.0, -quaternion_xyzw, quaternion_xyzw)
    sine = np.linalg.norm(short[..., :3], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, short[..., 3:])
    with np.errstate(divide="ignore", invalid="ignore"):
        return short[..., :3] * np.where(sine > 0.0, angle / sine, 2.0)


def between(start: Array, end: Array) -> Array:
    """The rotation vector [..., 3] that takes `start` to `end`, the short way round."""
    return to_rotation_vector(multiply(end, inverse(start)))


def turn(quaternion: Array, vector_rad: ArrayLike) -> Array:
    """`quaternion` turned by a rotation vector about fixed axes, kept at length 1. [..., 4]"""
    return normalize(multiply(from_rotation_vector(vector_rad), quaternion))


def slerp(start: Array, end: Array, fraction: ArrayLike) -> Array:
    """That fraction of the short way from `start` to `end`, at constant angular velocity. [..., 4]"""
    return turn(start, np.asarray(fraction, np.float64)[..., None] * between(start, end))
