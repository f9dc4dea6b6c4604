"""One observation of a recording of any format, and the choice of a few from a long recording."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qvla_ros.errors import QvlaError
from qvla_ros.messages.compressed_image import COLOUR_MODES

ORIENTATION = 0x0112  # EXIF tag
_GOLDEN_RATIO = (
    5**0.5 - 1
) / 2  # steps of this part of a circle cover it evenly, however many are taken


@dataclass(frozen=True)
class Needs:
    """What a policy reads: cameras, proprioception and the frame of poses.

    The cameras are in the policy's order; a policy without proprioception names none.
    rotate_180: for each camera, whether the policy turns what the robot publishes.
    """

    cameras: tuple[str, ...]
    rotate_180: tuple[bool, ...]
    proprioception: tuple[str, ...]
    pose_frame: str


@dataclass(frozen=True)
class Observed:
    """One observation as it was stored; `where` names it in errors.

    images: uint8 [H, W, 3], RGB, in the policy's order; rotate_180: which of them are upside down;
    proprioception: raw SI units [P], in the order of `Needs`, empty if the policy reads none; text:
    instruction or whole prompt.
    """

    where: str
    text: str
    images: tuple[np.ndarray, ...]
    rotate_180: tuple[bool, ...]
    proprioception: np.ndarray


def decoded_image(data: bytes, where: str, fix: str) -> np.ndarray:
    """Decodes an image file to uint8 [H, W, 3], RGB; QvlaError naming `where` if it is none.

    As on the robot, images of other than 8 bits are refused: Pillow would cut off what is brighter.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in COLOUR_MODES:
                found = f"{image.format} of mode {image.mode}"
                raise QvlaError(where, found, "8-bit colour or grey", fix)
            _require_one_upright(image, where)
            return np.asarray(image.convert("RGB"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # SyntaxError: a broken PNG
        raise QvlaError(where, error, "a readable image", fix) from None


def _require_one_upright(image: Image.Image, where: str) -> None:
    """QvlaError for several pictures in a file, and for a tag that says how to turn its pixels.

    The robot's decoder reads neither.
    """
    count = getattr(image, "n_frames", 1)
    if count > 1:
        fix = "save the picture that is meant as a file of its own"
        raise QvlaError(where, f"{image.format} of {count} pictures", "one picture", fix)
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation != 1:
        found = f"{image.format} whose EXIF orientation is {orientation}"
        fix = "turn its pixels and drop the tag, e.g. `mogrify -auto-orient FILE`"
        raise QvlaError(where, found, "pixels as they are to be seen", fix)


def evenly(total: int, count: int | None) -> list[int]:
    """Chooses `count` of the indices 0 ... total - 1, in order (None, or no more there: all).

    One is from each of `count` equal stretches, at a place that differs from stretch to stretch:
    equal distances could fall on the same phase of every episode.
    """
    if count is None or count >= total:
        return list(range(total))
    bounds = [index * total // count for index in range(count + 1)]
    places = [(index * _GOLDEN_RATIO) % 1.0 for index in range(count)]
    return [
        low + int(place * (high - low))
        for low, high, place in zip(bounds, bounds[1:], places, strict=False)
    ]
