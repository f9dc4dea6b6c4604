from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qvla_offline.datasets.observed import decoded_image, evenly
from qvla_ros.errors import QvlaError


@given(total=st.integers(0, 500), count=st.integers(1, 500))
def test_one_of_each_equal_stretch_is_taken(total, count):
    chosen = evenly(total, count)
    if count >= total:
        assert chosen == list(range(total))
    else:
        stretches = [
            (index * total // count, (index + 1) * total // count) for index in range(count)
        ]
        assert all(
            low <= index < high for index, (low, high) in zip(chosen, stretches, strict=True)
        )


def test_equal_episodes_are_not_always_looked_at_in_the_same_phase():
    phases = {index % 50 for index in evenly(20 * 50, 20)}
    assert len(phases) == 20
    assert min(phases) < 5 < 45 < max(phases)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file, with its length and its checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


@pytest.mark.parametrize(
    "surplus", [chunk(b"pHYs", b"x"), chunk(b"zTXt", b"key\0\1text")], ids=["pHYs", "zTXt"]
)
def test_a_png_with_a_part_that_pillow_cannot_read_is_refused_by_where_it_is(surplus):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    end = len(chunk(b"IEND", b""))
    assert decoded_image(whole, "line 1", "fix").shape == (8, 8, 3)
    for broken in (whole[:-end] + surplus + whole[-end:], whole[: len(whole) // 2]):
        with pytest.raises(QvlaError, match="line 1"):
            decoded_image(broken, "line 1", "fix")


@pytest.mark.parametrize(
    ("array", "form", "mode"),
    [
        (np.full((4, 4), 40_000, np.uint16), "PNG", "I;16"),
        (np.full((4, 4), 0.5, np.float32), "TIFF", "F"),
        (np.full((4, 4), 70_000, np.int32), "TIFF", "I"),
    ],
)
def test_images_of_more_than_8_bits_are_refused_as_on_the_robot(array, form, mode):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    with pytest.raises(QvlaError, match=f"{form} of mode {mode}; expected 8-bit colour or grey"):
        decoded_image(buffer.getvalue(), "line 1", "fix")


def test_no_count_takes_everything():
    assert evenly(4, None) == [0, 1, 2, 3]


def encoded(image: Image.Image, form: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


@pytest.mark.parametrize(("form", "orientation"), [("JPEG", 6), ("PNG", 3)])
def test_a_tag_that_turns_the_pixels_is_refused(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (4, 2))
    with pytest.raises(QvlaError, match=f"EXIF orientation is {orientation}"):
        decoded_image(encoded(image, form, exif=exif), "line 1", "name another")
    exif[0x0112] = 1
    assert decoded_image(encoded(image, form, exif=exif), "line 1", "fix").shape == (2, 4, 3)


def test_a_file_of_several_pictures_is_refused():
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(QvlaError, match="PNG of 2 pictures"):
        decoded_image(data, "line 1", "name another")
