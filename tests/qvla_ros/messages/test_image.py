"""Every colour encoding gives the same pixels.

What is not a colour image of the right size is refused by name.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

from qvla_ros.errors import QvlaError
from qvla_ros.messages.image import rgb_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def _message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1]
    )
    message.data = rows.tobytes()
    return message


def _with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 9, np.uint8)], axis=2)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("rgb8", PIXELS),
        ("bgr8", PIXELS[..., ::-1]),
        ("rgba8", _with_alpha(PIXELS)),
        ("bgra8", _with_alpha(PIXELS[..., ::-1])),
    ],
)
@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_every_colour_encoding_gives_the_same_pixels(
    encoding: str, stored: np.ndarray, padding: int, is_bigendian: int
) -> None:
    message = _message(stored, encoding, padding)
    message.is_bigendian = is_bigendian  # says nothing about single bytes
    np.testing.assert_array_equal(rgb_pixels(message, "/camera", 4, 6), PIXELS)


def test_grey_becomes_three_equal_channels() -> None:
    pixels = rgb_pixels(_message(PIXELS[..., 0], "mono8"), "/camera", 4, 6)
    np.testing.assert_array_equal(pixels, np.repeat(PIXELS[..., :1], 3, axis=2))


def test_rgb_is_not_copied() -> None:
    message = _message(PIXELS, "rgb8")
    assert np.shares_memory(
        rgb_pixels(message, "/camera", 4, 6), np.frombuffer(message.data, np.uint8)
    )


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "mono16", "jpeg", ""])
def test_what_is_not_8_bit_colour_is_refused(encoding: str) -> None:
    with pytest.raises(
        QvlaError, match=rf"encoding on /camera: got '{encoding}'; expected one of rgb8.*Fix: "
    ):
        rgb_pixels(_message(PIXELS, encoding), "/camera", 4, 6)


def test_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        QvlaError, match=r"image size on /camera: got 6x4 \(rgb8\); expected 640x480"
    ):
        rgb_pixels(_message(PIXELS, "rgb8"), "/camera", 480, 640)


def test_data_that_do_not_fill_the_image_are_refused() -> None:
    short = _message(PIXELS, "rgb8")
    narrow = _message(PIXELS, "rgb8")
    short.data = short.data[:-1]
    narrow.step = 17
    for message in (short, narrow):
        with pytest.raises(QvlaError, match="image data on /camera"):
            rgb_pixels(message, "/camera", 4, 6)


def test_a_bayer_image_without_cv_bridge_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(
        QvlaError, match=r"encoding on /camera: got 'bayer_rggb8'.*install cv_bridge"
    ):
        rgb_pixels(_message(PIXELS[..., 0], "bayer_rggb8"), "/camera", 4, 6)


# Where the first red, and the first blue, pixel of each pattern lies.
BAYER = {"rggb": ((0, 0), (1, 1)), "bggr": ((1, 1), (0, 0)), "gbrg": ((1, 0), (0, 1))}


@pytest.mark.parametrize("pattern", BAYER)
@pytest.mark.parametrize("colour", [0, 2], ids=["red", "blue"])
def test_a_bayer_image_becomes_colour_with_cv_bridge(pattern: str, colour: int) -> None:
    row, column = BAYER[pattern][colour // 2]
    mosaic = np.zeros((4, 6), np.uint8)
    mosaic[row::2, column::2] = 200
    pixels = rgb_pixels(_message(mosaic, f"bayer_{pattern}8"), "/camera", 4, 6)
    assert pixels.shape == (4, 6, 3)
    others = [channel for channel in range(3) if channel != colour]
    assert pixels[..., colour].mean() > 10 * max(1.0, pixels[..., others].mean())


@pytest.mark.parametrize("encoding", ["bayer_grbg8", "bayer_rggb16", "uyvy", "nv12", "8UC3"])
def test_an_encoding_that_this_cv_bridge_does_not_know_is_named(encoding: str) -> None:
    with pytest.raises(QvlaError, match=f"encoding on /camera: got '{encoding}'; .*rgb8"):
        rgb_pixels(_message(PIXELS[..., :2], encoding), "/camera", 4, 6)
