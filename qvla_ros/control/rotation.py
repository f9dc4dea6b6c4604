"""Computes with rotations as unit quaternions (x, y, z, w) and rotation vectors (radians).

Over any leading axes; float64.

Rotation vectors are given in the fixed frame: `turn(q, r)` turns q by |r| about the fixed axis r. A
single rotation, as a control thread has it a hundred times a second, is computed in Python's own
floats, several times as fast as numpy is with so few; to the last bit it is what the same rotation
gives among many.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])
TINY = 1e-300  # keeps a division by a length of 0 finite; what it is multiplied with is 0 then


def length(vector: Array) -> Array:
    """Euclidean, [..., n] -> [..., 1]."""
    if vector.ndim == 1:
        return np.array([math.sqrt(_squares(*vector.tolist()))])
    total = vector[..., :1] * vector[..., :1]
    for axis in range(1, vector.shape[-1]):
        total = total + vector[..., axis : axis + 1] * vector[..., axis : axis + 1]
    return np.sqrt(total)


def _squares(*numbers: float) -> float:
    total = numbers[0] * numbers[0]
    for number in numbers[1:]:
        total += number * number
    return total


def multiply(left: Array, right: Array) -> Array:
    """Hamilton product [..., 4]: the rotation `right` first, then `left`, both about fixed axes."""
    if left.ndim == right.ndim == 1:
        return np.array(_product(*left.tolist(), *right.tolist()))
    product = np.empty(np.broadcast_shapes(left.shape, right.shape))
    parts = _product(
        *(left[..., axis] for axis in range(4)), *(right[..., axis] for axis in range(4))
    )
    for axis, part in enumerate(parts):
        product[..., axis] = part
    return product


def _product(
    x: Any, y: Any, z: Any, w: Any, a: Any, b: Any, c: Any, d: Any
) -> tuple[Any, Any, Any, Any]:
    """(x, y, z, w) times (a, b, c, d), of numbers or of arrays."""
    return (
        w * a + x * d + y * c - z * b,
        w * b - x * c + y * d + z * a,
        w * c + x * b - y * a + z * d,
        w * d - x * a - y * b - z * c,
    )


def inverse(quaternion: Array) -> Array:
    """Inverts unit quaternions [..., 4]."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def normalize(quaternion: Array) -> Array:
    """Scaled to length 1. [..., 4]; the length must not be 0."""
    return quaternion / length(quaternion)


def from_rotation_vector(vector_rad: ArrayLike) -> Array:
    """[..., 3] -> [..., 4].

    Angles above pi are taken as they are: 2 pi - a about -r is the same rotation.
    """
    vector = np.asarray(vector_rad, np.float64)
    if vector.ndim == 1:
        numbers = vector.tolist()
        angle = 0.5 * math.sqrt(_squares(*numbers))
        factor = 0.5 * (float(np.sin(angle)) / max(angle, TINY) if angle > 0.0 else 1.0)
        return np.array([*(factor * number for number in numbers), float(np.cos(angle))])
    half = 0.5 * length(vector)
    sinc = np.where(half > 0.0, np.sin(half) / np.maximum(half, TINY), 1.0)
    return np.concatenate([0.5 * sinc * vector, np.cos(half)], axis=-1)


def to_rotation_vector(quaternion_xyzw: Array) -> Array:
    """[..., 4] -> [..., 3], the short way round: length 0 to pi.

    Not qvla_ros.actions.quaternion_to_axis_angle, which goes up to 2 pi because policies were
    trained on that.
    """
    if quaternion_xyzw.ndim == 1:
        *numbers, last = quaternion_xyzw.tolist()
        norm = math.sqrt(_squares(*numbers))
        factor = 2.0 * float(np.arctan2(norm, abs(last))) / max(norm, TINY) if norm > 0.0 else 2.0
        factor = math.copysign(factor, last)
        return np.array([number * factor for number in numbers])
    axis = quaternion_xyzw[..., :3]
    cosine = quaternion_xyzw[..., 3:]
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
    """[..., 4]: that fraction of the short way from `start` to `end`, at constant speed."""
    return turn(start, np.asarray(fraction, np.float64)[..., None] * between(start, end))
