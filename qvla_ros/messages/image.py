"""Reads the RGB pixels of a sensor_msgs/Image, without a copy where the encoding allows it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError, quoted

# encoding -> (channels, order of red, green, blue); 8 bit each, so is_bigendian does not matter
_LAYOUTS: dict[str, tuple[int, list[int] | slice]] = {
    "rgb8": (3, slice(None)),
    "bgr8": (3, slice(None, None, -1)),
    "rgba8": (4, slice(0, 3)),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}
# cv_bridge knows these; it is used when it is installed.
_CV_BRIDGE_PREFIXES = ("bayer_", "yuv", "uyvy", "yuyv", "nv12", "nv21", "nv24", "8UC3")


def rgb_pixels(message: Any, topic: str, height: int, width: int) -> NDArray[np.uint8]:
    """The pixels of a sensor_msgs/Image as uint8 [height, width, 3], RGB; a view where possible.

    Padding at the end of rows (`step`) is skipped. QvlaError for another size, an encoding that is
    not 8-bit colour or grey, or data that do not fill the image.
    """
    _require_size(message, topic, height, width)
    if message.encoding in _LAYOUTS:
        return _view(message, topic)
    if message.encoding.startswith(_CV_BRIDGE_PREFIXES):
        return _with_cv_bridge(message, topic)
    fix = (
        f"let the camera driver publish rgb8, or remap {topic} to a topic that "
        "carries colour images"
    )
    raise QvlaError(
        f"encoding on {topic}", quoted(message.encoding), "one of " + ", ".join(_LAYOUTS), fix
    )


def _require_size(message: Any, topic: str, height: int, width: int) -> None:
    if (message.height, message.width) != (height, width):
        found = f"{message.width}x{message.height} ({message.encoding[:80]})"
        fix = "set the camera to this size, or export the bundle for this camera"
        raise QvlaError(f"image size on {topic}", found, f"{width}x{height} (width x height)", fix)


def _view(message: Any, topic: str) -> NDArray[np.uint8]:
    channels, order = _LAYOUTS[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    row_bytes = message.width * channels
    needed = message.step * message.height
    if message.step < row_bytes or data.size < needed:
        found = f"step {message.step}, {data.size} bytes"
        expected = f"step of at least {row_bytes} and step x {message.height} bytes"
        raise QvlaError(
            f"image data on {topic}", found, expected, "correct the driver that fills the message"
        )
    rows = data[:needed].reshape(message.height, message.step)[:, :row_bytes]
    return rows.reshape(message.height, message.width, channels)[..., order]


def _with_cv_bridge(message: Any, topic: str) -> NDArray[np.uint8]:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        fix = (
            "install cv_bridge (apt: ros-$ROS_DISTRO-cv-bridge; without a ROS install: pip install "
            "--no-deps cv-bridge), or let the camera driver publish rgb8"
        )
        raise QvlaError(
            f"encoding on {topic}", quoted(message.encoding), f"cv_bridge for it ({error})", fix
        ) from None
    try:
        pixels = np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))
    # A buffer of the wrong size is a TypeError or a ValueError, an encoding that this cv_bridge
    # does not know a KeyError.
    except (CvBridgeError, TypeError, ValueError, KeyError) as error:
        fix = "let the camera driver publish rgb8"
        raise QvlaError(
            f"encoding on {topic}", quoted(message.encoding), f"one that converts ({error})", fix
        ) from None
    if pixels.dtype != np.uint8 or pixels.shape != (message.height, message.width, 3):
        found = f"{quoted(message.encoding)}, which cv_bridge makes {pixels.dtype} {pixels.shape}"
        fix = "let the camera driver publish rgb8"
        raise QvlaError(f"encoding on {topic}", found, "8-bit colour", fix)
    return pixels
