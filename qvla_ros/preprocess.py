"""Turns a robot's observation into the inputs of the policy graph (numpy).

They are bit for bit as in OpenVLA-OFT's evaluation.

The image chain is that of OpenVLA-OFT's LIBERO evaluation: rotate by 180 degrees, JPEG round trip,
antialiased Lanczos-3 resize (qvla_ros.lanczos), centre crop resized back bilinearly, normalise.
There TensorFlow does it; here the same numbers come without it (tests/qvla_ros/test_preprocess.py
holds TensorFlow's results). Where upstream uses Pillow, so do we: for ALOHA's images before all
that, and after the crop for ViTs of other sizes. All images are uint8 [H, W, 3], RGB.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.errors import QvlaError, quoted
from qvla_ros.lanczos import lanczos3_resize
from qvla_ros.specifications import CameraSpec, PromptSpec
from qvla_ros.tokenizer import token_ids

Image = NDArray[np.uint8]

# The released normalisation divides by (high - low + this), so that a constant dimension does not
# divide by zero.
RANGE_EPSILON = 1e-8
# The graph's rotary tables end after so many; LIBERO's longest prompt has about 60.
MAX_INSTRUCTION_BYTES = 4096  # in UTF-8: to tokenize a megabyte would take half a second
MAX_PROMPT_TOKENS = 256


def rotate_180(image: Image) -> Image:
    """Turn the image upside down and left to right: LIBERO's cameras are mounted that way round."""
    turned = np.empty_like(image)
    # one at a time: numpy is slow at copying pixels of three bytes
    for channel in range(image.shape[2]):
        turned[..., channel] = image[::-1, ::-1, channel]
    return turned


def jpeg_round_trip(image: Image, quality: int) -> Image:
    """JPEG encode (4:2:0) and decode, equal to tf.io.encode_jpeg and tf.io.decode_jpeg.

    Pillow's encoder quantises as TensorFlow's does; only the fast integer DCT with fancy upsampling
    decodes as it does, and Pillow cannot choose it, so simplejpeg decodes.
    """
    import simplejpeg
    from PIL import Image as PillowImage

    buffer = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(image)).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return simplejpeg.decode_jpeg(
        buffer.getvalue(), colorspace="RGB", fastdct=True, fastupsample=False
    )


def bicubic_resize(image: Image, size: int) -> Image:
    """Resizes to [S, S, 3] with Pillow's antialiased bicubic filter, as OpenVLA's image processor
    does.
    """
    if image.shape[:2] == (size, size):
        return image
    from PIL import Image as PillowImage

    pillow = PillowImage.fromarray(np.ascontiguousarray(image))
    return np.asarray(pillow.resize((size, size), PillowImage.Resampling.BICUBIC))


def center_crop(image: Image, area: float) -> Image:
    """Crops the centre `area` (fraction of the pixels) and resizes back bilinearly.

    The result equals that of tf.image.crop_and_resize.

    Interpolates on pixels / 255 in float32, columns then rows; back to uint8 by truncating value *
    255.5.
    """
    height, width, channels = image.shape
    top, bottom, row_fraction = _crop_samples(height, area)
    left, right, column_fraction = _crop_samples(width * channels, area, channels)
    scaled = image.reshape(height, -1).astype(np.float32)
    scaled *= np.float32(1 / 255)
    columns = _between(scaled.take(left, axis=1), scaled.take(right, axis=1), column_fraction)
    blended = _between(
        columns.take(top, axis=0), columns.take(bottom, axis=0), row_fraction[:, None]
    )
    return (np.clip(blended, 0, 1) * np.float32(255.5)).astype(np.uint8).reshape(image.shape)


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32], fraction: NDArray[np.float32]
) -> NDArray:
    """first + (second - first) * fraction, in place of `second`."""
    second -= first
    second *= fraction
    second += first
    return second


@lru_cache(maxsize=64)
def _crop_samples(
    numbers: int, area: float, channels: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each output number along one axis: the two source numbers and the fraction of the way to
    the second.

    Every `channels` numbers are a pixel.
    """
    length = numbers // channels
    side = np.sqrt(np.float32(area))
    start = (np.float32(1.0) - side) / np.float32(2.0)
    end = start + side
    step = (end - start) * np.float32(length - 1) / np.float32(length - 1)
    position = start * np.float32(length - 1) + np.arange(length, dtype=np.float32) * step
    low = np.floor(position)
    high = np.minimum(np.ceil(position), length - 1)
    first, second = (
        (channels * pixel.astype(np.int64)[:, None] + np.arange(channels)).ravel()
        for pixel in (low, high)
    )
    return first, second, np.repeat(position - low, channels)


def normalize(image: Image, mean: ArrayLike, std: ArrayLike) -> NDArray[np.float32]:
    """(image / 255 - mean) / std per channel, float32 [3, H, W]."""
    levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    table = (levels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)  # [256, 3]
    return np.stack([table[:, channel].take(image[..., channel]) for channel in range(3)])


def resized_image(camera: CameraSpec, image: Image) -> Image:
    """The chain up to normalisation: uint8 [S, S, 3].

    This is what the policy sees: show it, store it.
    """
    if image.dtype != np.uint8 or image.shape != (camera.height, camera.width, 3):
        raise QvlaError(
            f"image of camera {camera.name!r}",
            f"{image.dtype} {list(image.shape)}",
            f"uint8 [{camera.height}, {camera.width}, 3]",
            "publish the camera at the size that the bundle names, or export a bundle "
            "for this camera",
        )
    if camera.rotate_180:
        image = rotate_180(image)
    if camera.bicubic_size is not None:
        image = bicubic_resize(image, camera.bicubic_size)
    if camera.jpeg_quality is not None:
        image = jpeg_round_trip(image, camera.jpeg_quality)
    image = lanczos3_resize(image, camera.lanczos_size)
    if camera.center_crop_area is not None:
        image = center_crop(image, camera.center_crop_area)
    return bicubic_resize(image, camera.input_size)


def image_tensor(camera: CameraSpec, image: Image) -> NDArray[np.float32]:
    """Camera image uint8 [height, width, 3] -> float32 [C, S, S].

    C = 3 per normalisation, in the order of the spec.
    """
    small = resized_image(camera, image)
    return np.concatenate([normalize(small, mean, std) for mean, std in camera.normalizations])


def prompt_text(prompt: PromptSpec, instruction: str, source: str = "instruction") -> str:
    """The prompt of one instruction.

    Surrounding white space of the instruction is not part of the task.

    source: where the instruction comes from (a file and line, a topic), for the error when it is
    blank or longer than MAX_INSTRUCTION_BYTES.
    """
    if len(instruction.encode(errors="replace")) > MAX_INSTRUCTION_BYTES:
        found = f"{len(instruction)} characters, {quoted(instruction)}"
        expected = f"at most {MAX_INSTRUCTION_BYTES} bytes"
        raise QvlaError(source, found, expected, "say it in fewer words")
    instruction = instruction.strip()
    if not instruction:
        fix = "say there what to do, for example: pick up the milk"
        raise QvlaError(source, "blank text", "a sentence that names the task", fix)
    return prompt.template.replace(
        "{instruction}", instruction.lower() if prompt.lowercase else instruction
    )


def prompt_ids(
    prompt: PromptSpec, tokenizer: Any, instruction: str, source: str = "instruction"
) -> NDArray[np.int64]:
    """Token ids int64 [1, L]: BOS first, `append_token_id` last (added unless it is there already).

    tokenizer: a tokenizers.Tokenizer, or anything whose encode(text).ids adds the special tokens.
    source: as for prompt_text. QvlaError beyond MAX_PROMPT_TOKENS, which the graph would refuse
    less clearly.
    """
    text = prompt_text(prompt, instruction, source)
    ids = token_ids(tokenizer, text)
    if prompt.append_token_id is not None and ids[-1:] != [prompt.append_token_id]:
        ids.append(prompt.append_token_id)
    if len(ids) > MAX_PROMPT_TOKENS:
        found = f"{len(ids)} tokens with the prompt around {quoted(instruction)}"
        raise QvlaError(
            source, found, f"at most {MAX_PROMPT_TOKENS} tokens", "say it in fewer words"
        )
    return np.array([ids], dtype=np.int64)


def normalize_proprioception(
    values: ArrayLike, low: ArrayLike, high: ArrayLike, mask: ArrayLike | None = None
) -> NDArray[np.float64]:
    """clip(2 (x - low) / (high - low + 1e-8) - 1, -1, 1) where `mask` (absent: all), else clip(x,
    -1, 1).
    """
    values, low, high = (np.asarray(array, np.float64) for array in (values, low, high))
    normalized = 2.0 * (values - low) / (high - low + RANGE_EPSILON) - 1.0
    if mask is not None:
        normalized = np.where(np.asarray(mask, bool), normalized, values)
    return np.clip(normalized, -1.0, 1.0)
