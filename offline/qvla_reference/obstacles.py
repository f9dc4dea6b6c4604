"""Represents obstacles of a hand or of a carried object as boxes seen from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Obstacles:
    """N boxes, each standing on one of its faces; metres, world frame."""

    center_m: np.ndarray  # [N, 2], seen from above
    axes: np.ndarray  # [N, 2, 2], rows: unit vectors along the two sides
    half_extent_m: np.ndarray  # [N, 2], along these
    top_m: np.ndarray  # [N]

    @staticmethod
    def of_boxes(
        center_m: np.ndarray, rotation: np.ndarray, half_extent_m: np.ndarray
    ) -> Obstacles:
        """Makes them of N boxes in space: centres [N, 3], axes as columns, half extents [N, 3].

        axes: [N, 3, 3].

        A box that leans is taken to be as wide as the two sides that are least upright, and as high
        as its top corner.
        """
        upright = np.abs(rotation[:, 2, :]).argmax(axis=-1)
        sides = (upright[:, None] + [1, 2]) % 3
        axes = np.swapaxes(np.take_along_axis(rotation[:, :2, :], sides[:, None, :], axis=-1), 1, 2)
        axes = axes / np.maximum(np.linalg.norm(axes, axis=-1, keepdims=True), 1e-9)
        top = center_m[:, 2] + (np.abs(rotation[:, 2, :]) * half_extent_m).sum(axis=-1)
        return Obstacles(
            center_m[:, :2], axes, np.take_along_axis(half_extent_m, sides, axis=-1), top
        )

    def heights_m(self, points_m: np.ndarray, margin_m: float = 0.0) -> np.ndarray:
        """Returns the highest top [K] of the boxes within `margin_m` of each of `points_m` [K, 2].

        -inf if there is no box.
        """
        offsets = np.einsum("nij,knj->kni", self.axes, points_m[:, None, :] - self.center_m)
        hit = (np.abs(offsets) <= self.half_extent_m + margin_m).all(axis=-1)
        return np.where(hit, self.top_m, -np.inf).max(axis=-1, initial=-np.inf)


def swept_footprint(
    low_m: np.ndarray, high_m: np.ndarray, way_m: np.ndarray, spacing_m: float = 0.015
) -> np.ndarray:
    """Returns points [K, 2] of all that a rectangle covers when it moves by `way_m` [2].

    The rectangle is between `low_m` [2] and `high_m` [2].
    """
    counts = np.maximum(np.ceil((high_m - low_m) / spacing_m).astype(int), 1) + 1
    sides = [np.linspace(a, b, n) for a, b, n in zip(low_m, high_m, counts, strict=True)]
    footprint = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    moves = np.linspace(0.0, 1.0, 2 + int(np.linalg.norm(way_m) / spacing_m))[:, None] * way_m
    return (footprint[:, None, :] + moves).reshape(-1, 2)


NO_OBSTACLES = Obstacles(np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros((0, 2)), np.zeros(0))
