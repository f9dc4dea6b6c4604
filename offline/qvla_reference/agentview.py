"""Projects points of the world into the picture that the policy sees of the agentview camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

FIELD_OF_VIEW_RAD = math.radians(45.0)  # vertical; the pictures are square


@dataclass(frozen=True)
class Camera:
    """The pose of an agentview camera.

    position_m: world. pitch_rad: how far it is tilted down. Both of LIBERO's cameras point along
    -x, with y to the right.
    """

    position_m: tuple[float, float, float]
    pitch_rad: float


# As the simulator reports them (cam_xpos, cam_xmat) for the scenes on the floor and on the table.
_FLOOR = Camera((0.8966, 0.0, 0.65), math.asin(0.52877))
_TABLE = Camera((0.6586, 0.0, 1.6104), math.asin(0.62827))
_CAMERAS = {"libero_object": _FLOOR, "libero_object_named": _FLOOR, "libero_spatial": _TABLE}


def camera_of(suite: str) -> Camera:
    """Returns the agentview camera of a suite; QvlaError for a suite whose camera is not known."""
    if suite not in _CAMERAS:
        fix = "train without it, or add its camera to offline/qvla_reference/agentview.py"
        raise QvlaError("suite of the demonstrations", suite, "one of " + ", ".join(_CAMERAS), fix)
    return _CAMERAS[suite]


def picture_coordinates(points_m: NDArray, camera: Camera, crop_area: float) -> NDArray[np.float64]:
    """Projects world points [N, 3] to (column, row) [N, 2] in the upright, cropped picture.

    They are fractions of the picture after the centre crop; outside of [0, 1] they are not in it.
    Upright pictures are mirrored: rotating robosuite's by 180 degrees undoes its flip of the rows
    and mirrors the columns instead, in the released data too.
    """
    forward = np.array([-math.cos(camera.pitch_rad), 0.0, -math.sin(camera.pitch_rad)])
    up = np.array([-math.sin(camera.pitch_rad), 0.0, math.cos(camera.pitch_rad)])
    offset = np.asarray(points_m, np.float64) - np.array(camera.position_m)
    scale = 0.5 / math.tan(FIELD_OF_VIEW_RAD / 2) / (offset @ forward)
    column = -offset[:, 1] * scale
    row = -(offset @ up) * scale
    return np.stack([column, row], axis=-1) / math.sqrt(crop_area) + 0.5


def patch_shares(coordinates: NDArray, side: int) -> NDArray[np.float32]:
    """Spreads points at (column, row) [N, 2] over `side` x `side` patches, [N, side^2].

    The shares are bilinear over the four nearest patches, row by row. A point outside counts at the
    edge.
    """
    grid = np.clip(np.asarray(coordinates) * side - 0.5, 0.0, side - 1.0)
    columns, rows = (
        np.maximum(0.0, 1.0 - np.abs(grid[:, i, None] - np.arange(side))) for i in (0, 1)
    )
    return (rows[:, :, None] * columns[:, None, :]).reshape(len(grid), -1).astype(np.float32)
