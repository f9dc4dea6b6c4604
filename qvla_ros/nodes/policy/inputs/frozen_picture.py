"""Finds a camera whose driver sends one picture again and again under new stamps. Pure.

A camera that sees the arm move, or moves with it, cannot send the same bytes twice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control.measurement import distance
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError

# What the arm moves by while the picture stays: m or rad along an axis, and rad of a turn.
MOVED = 0.05
TURNED_RAD = 0.1


class FrozenPicture:
    """most: how many equal pictures in a row are taken while the arm moves; 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pixels: NDArray[np.uint8] | None = None
        self._count = 0
        self._state: Setpoint | None = None  # of the arm since they are alike

    def require_change(
        self, pixels: NDArray[np.uint8], arm: Callable[[], Setpoint | None], topic: str
    ) -> NDArray[np.uint8]:
        """Returns the pixels; QvlaError if they have stayed while the arm moved.

        arm: where it is measured now, None where that is not known. Asked only while they stay.
        """
        if self._most == 0:
            return pixels
        if self._pixels is None or not np.array_equal(pixels, self._pixels):
            self._pixels = pixels
            self._count = 1
            self._state = None
            return pixels
        self._count += 1
        state = arm()
        self._state = state if self._state is None else self._state
        if self._count > self._most and self._state is not None and state is not None:
            linear, turn_rad = distance(self._state, state)
            if linear.max() > MOVED or turn_rad > TURNED_RAD:
                found = f"the same picture {self._count} times while the arm moved"
                fix = (
                    "restart the camera's driver; in a simulation without noise, for a camera that "
                    "does not see the arm: -p max_equal_images:=0"
                )
                raise QvlaError(f"image on {topic}", found, "pictures that change", fix)
        return pixels
