"""Antialiased Lanczos-3 resizing with TensorFlow's numbers, bit for bit, on every machine.

TensorFlow's kernel calls sinf, the C library's float32 sine. That one is not correctly rounded (it
may be 0.56 units in the last place off), C libraries differ in it, and one unit turns a pixel by a
level here and there. So the sine is computed here as glibc 2.36 computes it, from float64
operations alone, each of which IEEE 754 fixes: x86 and aarch64 give the same numbers. It equals
glibc's at each of the 110 million float32 from 0.001 to 9.5, which are all that the kernel asks for
(docs/measured.md, Images).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Coefficients of the sine's and the cosine's polynomial in [-pi/4, pi/4], lowest power first, as
# glibc has them from Arm Optimized Routines (MIT), math/sincosf_data.c.
_SINE = tuple(
    map(float.fromhex, ("-0x1.555545995a603p-3", "0x1.1107605230bc4p-7", "-0x1.994eb3774cf24p-13"))
)
_COSINE = tuple(
    map(
        float.fromhex,
        (
            "-0x1.ffffffd0c621cp-2",
            "0x1.55553e1068f19p-5",
            "-0x1.6c087e89a359dp-10",
            "0x1.99343027bf8c3p-16",
        ),
    )
)


def lanczos3_resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes uint8 [H, W, 3] to [S, S, 3] with antialiased Lanczos-3, as
    tf.image.resize(method="lanczos3", antialias=True).

    Rows first, then columns, in float32; then rounded half to even and clipped.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    # [H, 3, W]: long runs of memory for numpy
    planes = image.transpose(0, 2, 1).astype(np.float32, order="C")
    rows = _filter_first_axis(planes, *lanczos3_taps(height, size))  # [S, 3, W]
    columns_first = np.ascontiguousarray(rows.transpose(2, 1, 0))
    # [S of columns, 3, S of rows]
    resized = _filter_first_axis(columns_first, *lanczos3_taps(width, size))
    rounded = np.clip(np.rint(resized), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(2, 0, 1))


def _filter_first_axis(
    values: NDArray[np.float32], index: NDArray, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weighted sums along the first axis of `values` [N, ...].

    Index, weights: [taps, out], added up in ascending source order.
    """
    factors = weights.reshape(*weights.shape, *[1] * (values.ndim - 1))
    total = values.take(index[0], axis=0)
    total *= factors[0]
    term = np.empty_like(total)
    for tap_index, factor in zip(index[1:], factors[1:], strict=True):
        # no index is outside; this mode writes without a copy
        values.take(tap_index, axis=0, out=term, mode="clip")
        term *= factor
        total += term
    return total


@lru_cache(maxsize=64)
def lanczos3_taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Source indices and weights, both [taps, target], of a 1-D resize.

    Missing taps have weight zero.
    """
    inverse_scale = np.float32(1.0) / np.float32(target / source)
    kernel_scale = np.maximum(inverse_scale, np.float32(1.0))
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * inverse_scale
    first = np.maximum(np.ceil(centre - 3 * kernel_scale - np.float32(0.5)), 0).astype(np.int64)
    last = np.minimum(np.floor(centre + 3 * kernel_scale - np.float32(0.5)), source - 1).astype(
        np.int64
    )
    index = first + np.arange((last - first).max() + 1)[:, None]
    distance = np.abs(
        (index.astype(np.float32) + np.float32(0.5) - centre) * (np.float32(1.0) / kernel_scale)
    )
    weights = np.where(index <= last, _lanczos3(distance), np.float32(0.0))
    total = np.zeros(target, np.float32)
    for tap in weights:  # in order, as the reference sums: np.sum pairs
        total += tap
    return np.minimum(index, source - 1), weights * (np.float32(1.0) / total)


def _lanczos3(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel 3 sin(pi x) sin(pi x / 3) / (pi x)^2 for x >= 0.

    1 near zero, 0 beyond 3. Float32, in this order.
    """
    pi = np.float32(np.pi)
    radius = np.float32(3.0)
    # beyond the radius the value is not used: the sine need not be right there
    x = np.clip(distance, np.float32(1e-3), radius)
    value = radius * sine(pi * x) * sine(pi * x / radius) / (pi * pi * x * x)
    return np.where(
        distance <= 1e-3, np.float32(1.0), np.where(distance > radius, np.float32(0.0), value)
    )


def sine(angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """glibc's sinf of angles from 0.001 to 9.5 rad."""
    x = angle.astype(np.float64)
    quarter = np.floor(x * (2 / np.pi) + 0.5)  # the nearest multiple of pi / 2
    rest = x - quarter * (np.pi / 2)
    square = rest * rest
    cube = rest * square
    fourth = square * square
    of_sine = rest + cube * _SINE[0] + cube * square * (_SINE[1] + square * _SINE[2])
    of_cosine = 1 + square * _COSINE[0] + fourth * _COSINE[1]
    of_cosine += fourth * square * (_COSINE[2] + square * _COSINE[3])
    turns = quarter.astype(np.int64) % 4
    value = np.where(turns % 2 == 0, of_sine, of_cosine)
    return np.where(turns < 2, value, -value).astype(np.float32)
