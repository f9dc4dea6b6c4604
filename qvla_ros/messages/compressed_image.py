"""Decodes sensor_msgs/CompressedImage (JPEG or PNG) into RGB pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as PillowImage

from qvla_ros.errors import QvlaError, quoted

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG"
# Pillow's names of 8-bit colour and grey. Depth images are 16 bit and no colours.
COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P")


def rgb_pixels_of_compressed(
    message: Any, topic: str, height: int, width: int
) -> NDArray[np.uint8]:
    """Decodes a sensor_msgs/CompressedImage to uint8 [height, width, 3], RGB.

    The first bytes decide between JPEG and PNG: `format` is free text that publishers fill in
    differently. QvlaError for another format or size and for data that do not decode. Takes
    milliseconds: not for an executor's thread.
    """
    data = bytes(message.data)
    if not data.startswith((_JPEG, _PNG)):
        fix = f"let the camera publish JPEG or PNG on {topic}; depth and video streams are not read"
        raise QvlaError(
            f"image on {topic}",
            f"format {quoted(message.format)}, {len(data)} bytes",
            "JPEG or PNG",
            fix,
        )
    decode = _jpeg if data.startswith(_JPEG) else _png
    try:
        return decode(data, topic, height, width)
    # A broken PNG is a SyntaxError.
    except (ValueError, OSError, SyntaxError, PillowImage.DecompressionBombError) as error:
        found = f"{len(data)} bytes that do not decode ({error})"
        raise QvlaError(
            f"image on {topic}", found, "a whole image", "correct the camera driver"
        ) from None


def _jpeg(data: bytes, topic: str, height: int, width: int) -> NDArray[np.uint8]:
    found_height, found_width, _, _ = simplejpeg.decode_jpeg_header(data)
    _require_size((found_height, found_width), topic, height, width)
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def _png(data: bytes, topic: str, height: int, width: int) -> NDArray[np.uint8]:
    with PillowImage.open(io.BytesIO(data), formats=("PNG",)) as image:
        # Before anything of that size is allocated.
        _require_size((image.height, image.width), topic, height, width)
        if image.mode not in COLOUR_MODES:
            fix = f"remap {topic} to a topic that carries colour images"
            raise QvlaError(
                f"image on {topic}", f"PNG of mode {image.mode}", "8-bit colour or grey", fix
            )
        return np.array(image.convert("RGB"))


def _require_size(found: tuple[int, int], topic: str, height: int, width: int) -> None:
    if found != (height, width):
        fix = "set the camera to this size, or export the bundle for this camera"
        expected = f"{width}x{height} (width x height)"
        raise QvlaError(
            f"image size on {topic}", f"{found[1]}x{found[0]} (compressed)", expected, fix
        )
