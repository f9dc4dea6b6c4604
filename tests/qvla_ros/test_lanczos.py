"""The resize equals TensorFlow's, down to the C library's sine that TensorFlow calls."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image as PillowImage

from qvla_ros.lanczos import lanczos3_resize, lanczos3_taps, sine

# sha256 of glibc 2.36's sinf of every 257th float32 from 0.001 to 9.5
GLIBC_SINES = "5ec4fb1250e3a64729f425d959ea22fd49d6b0002d9e0766a2ecf1beab7cb5d9"


def _every_257th_float() -> np.ndarray:
    first, last = (int(np.float32(end).view(np.int32)) for end in (0.001, 9.5))
    return np.arange(first, last + 1, 257, dtype=np.int32).view(np.float32)


def test_the_sine_is_that_of_glibc() -> None:
    assert hashlib.sha256(sine(_every_257th_float()).tobytes()).hexdigest() == GLIBC_SINES


def test_a_pixel_that_one_unit_of_the_sine_decides_is_tensorflows() -> None:
    image = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    assert lanczos3_resize(image, 224)[35, 217, 0] == 246


def test_lanczos_weights_equal_tensorflow(vectors: dict) -> None:
    index, weights = lanczos3_taps(256, 224)
    for output, expected in vectors["images"]["lanczos3_256_to_224"].items():
        column = int(output)
        count = len(expected["w"])
        assert index[0, column] == expected["start"]
        assert weights[:count, column].tolist() == expected["w"]
        assert not weights[count:, column].any()


@pytest.mark.parametrize("size", [11, 16, 22, 65, 66, 67, 132, 198])
def test_lanczos_agrees_with_pillows_at_any_ratio(size: int) -> None:
    """Also at odd ones, where a source pixel lies exactly in the middle of a target pixel.

    Pillow rounds and clips between the passes; greys from 90 to 165 never reach an end.
    """
    image = np.random.default_rng(0).integers(90, 166, (66, 99, 3), np.uint8)
    expected = PillowImage.fromarray(image).resize((size, size), PillowImage.Resampling.LANCZOS)
    found = lanczos3_resize(image, size)
    assert found.shape == (size, size, 3)
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1
