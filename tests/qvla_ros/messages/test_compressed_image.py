"""JPEG and PNG become RGB; all but a whole colour image of the right size is refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage

from qvla_ros.errors import QvlaError
from qvla_ros.messages.compressed_image import rgb_pixels_of_compressed

HEIGHT = 24
WIDTH = 40
# Smooth, so that JPEG changes it little; red to the right, green downwards, blue constant.
PIXELS = np.stack(
    np.broadcast_arrays(
        np.linspace(0, 255, WIDTH)[None, :], np.linspace(0, 255, HEIGHT)[:, None], 90.0
    ),
    axis=-1,
).astype(np.uint8)


def _message(pixels: np.ndarray, kind: str, text: str = "") -> CompressedImage:
    buffer = io.BytesIO()
    image = PillowImage.fromarray(pixels)
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return CompressedImage(format=text, data=buffer.getvalue())


@pytest.mark.parametrize("text", ["", "jpeg", "bgr8; jpeg compressed bgr8"])
def test_a_jpeg_gives_its_colours_whatever_its_format_says(text: str) -> None:
    pixels = rgb_pixels_of_compressed(_message(PIXELS, "JPEG", text), "/camera", HEIGHT, WIDTH)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 3


def test_a_png_gives_its_colours_exactly() -> None:
    pixels = rgb_pixels_of_compressed(_message(PIXELS, "PNG"), "/camera", HEIGHT, WIDTH)
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    pixels = rgb_pixels_of_compressed(_message(PIXELS[..., 0], kind), "/camera", HEIGHT, WIDTH)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(pixels, axis=2).max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_another_size_is_refused_with_both_sizes(kind: str) -> None:
    with pytest.raises(
        QvlaError, match=r"image size on /camera: got 40x24 \(compressed\); expected 640x480"
    ):
        rgb_pixels_of_compressed(_message(PIXELS, kind), "/camera", 480, 640)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_an_image_that_was_cut_off_is_refused(kind: str, kept: float) -> None:
    message = _message(
        np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), kind
    )
    message.data = message.data[: int(len(message.data) * kept)]
    with pytest.raises(QvlaError, match="image on /camera: got .* bytes that do not decode"):
        rgb_pixels_of_compressed(message, "/camera", HEIGHT, WIDTH)


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x01\x67", b"GIF89a"])
def test_what_is_neither_jpeg_nor_png_is_refused_with_its_format(data: bytes) -> None:
    with pytest.raises(QvlaError, match=r"format 'h264'.*expected JPEG or PNG"):
        rgb_pixels_of_compressed(
            CompressedImage(format="h264", data=data), "/camera", HEIGHT, WIDTH
        )


def test_a_depth_image_in_a_png_is_no_colour_image() -> None:
    depth = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    with pytest.raises(QvlaError, match=r"PNG of mode I;16; expected 8-bit"):
        rgb_pixels_of_compressed(_message(depth, "PNG"), "/camera", HEIGHT, WIDTH)


def test_a_png_that_says_it_is_enormous_is_refused_like_any_other() -> None:
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
    )
    with pytest.raises(QvlaError, match="image on /camera"):
        rgb_pixels_of_compressed(CompressedImage(format="png", data=data), "/camera", HEIGHT, WIDTH)
