"""Reads the RGB pixels of an image message, raw or compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.messages.compressed_image import rgb_pixels_of_compressed
from qvla_ros.messages.image import rgb_pixels
from qvla_ros.messages.kinds import IMAGE


def pixels_of(message: Any, kind: str, topic: str, height: int, width: int) -> NDArray[np.uint8]:
    """Reads a message's pixels: uint8 [height, width, 3], RGB. kind: its type.

    Raises QvlaError unless it holds such an image.
    """
    read = rgb_pixels if kind == IMAGE else rgb_pixels_of_compressed
    return read(message, topic, height, width)
