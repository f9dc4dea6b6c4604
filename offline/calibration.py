"""Calibration data: JSONL lines become the inputs that the policy sees on the robot, through the same preprocessing.

One object a line: {"text": instruction, "image": path, "wrist_image": path, "proprio": [8 raw numbers]}; paths are
relative to the JSONL. Images are upright camera frames of any size (what a person sees; LIBERO's raw frames are upside
down, so turn them first). `text` may also be a whole prompt, as in the files for the released scripts; the instruction
is then taken out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.export.robot import LIBERO, RobotDescription
from qvla_offline.fingerprint import combined_sha256

from qvla_ros.bundle import CameraSpec
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import image_tensor, normalize_proprioception, prompt_ids

IMAGE_KEYS = ("image", "wrist_image")
_FIX = "mend the line, or pass --skip_bad_lines to go on without it"


def read_calibration(
    jsonl: str | Path,
    checkpoint: Checkpoint,
    max_samples: int | None = 32,
    skip_bad_lines: bool = False,
    robot: RobotDescription = LIBERO,
) -> list[PolicyInputs]:
    """The first `max_samples` lines as batches of one, on the CPU, in the dtype of the checkpoint.

    A line that is not JSON, lacks a key or names a missing image is a QvlaError naming the line; with skip_bad_lines it
    is counted and reported instead. (The released script drops such lines silently.) robot: whose image chain to apply.
    """
    samples: list[PolicyInputs] = []
    skipped = 0
    for where, line in _lines(Path(jsonl)):
        if len(samples) == max_samples:
            break
        try:
            samples.append(read_line(line, where, Path(jsonl).parent, checkpoint, robot))
        except QvlaError as error:
            if not skip_bad_lines:
                raise
            skipped += 1
            print(f"skipped {error.key}: {error.value}")
    if skipped:
        print(f"calibration: skipped {skipped} bad lines, kept {len(samples)}")
    if not samples:
        raise QvlaError("calib_jsonl", f"{jsonl}: no usable line", "at least one line", "check the file")
    return samples


def read_line(
    line: str, where: str, folder: Path, checkpoint: Checkpoint, robot: RobotDescription = LIBERO
) -> PolicyInputs:
    """One line as model inputs; `where` names it in errors."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise QvlaError(where, error, "one JSON object", _FIX) from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise QvlaError(f"{where}: text", _shown(record, "text"), "an instruction", _FIX)
    config, dtype = checkpoint.config.decoding, next(checkpoint.model.parameters()).dtype
    if config.num_images > len(IMAGE_KEYS):
        raise QvlaError("num_images", config.num_images, f"at most {len(IMAGE_KEYS)}", "use another checkpoint")
    images = []
    for key in IMAGE_KEYS[: config.num_images]:
        pixels = _read_image(record, key, where, folder)
        images.append(image_tensor(upright_camera(checkpoint, robot, key, *pixels.shape[:2]), pixels))
    text = instruction_of(record["text"], checkpoint.prompt.template)
    return PolicyInputs(
        pixel_values=torch.from_numpy(np.concatenate(images))[None].to(dtype),
        input_ids=torch.from_numpy(prompt_ids(checkpoint.prompt, checkpoint.tokenizer, text, f"{where}: text")),
        proprio=torch.from_numpy(_proprio(record, where, checkpoint))[None].to(dtype),
    )


def instruction_of(text: str, template: str) -> str:
    """The instruction, whether `text` is one or a whole prompt around one."""
    head, tail = (part.strip() for part in template.split("{instruction}"))
    stripped = text.strip()
    if head and stripped.startswith(head):
        stripped = stripped.removeprefix(head).removesuffix(tail)
    return stripped.strip()


def calibration_sha256(jsonl: str | Path, max_samples: int | None = None) -> str:
    """Hash of the first `max_samples` lines' file and of every image in it that exists."""
    path = Path(jsonl)
    images = []
    for _, line in list(_lines(path))[:max_samples]:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            images += [path.parent / record[key] for key in IMAGE_KEYS if isinstance(record.get(key), str)]
    return combined_sha256([path, *(image for image in images if image.is_file())])


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise QvlaError("calib_jsonl", path, "a JSONL file", "name one with --calib_jsonl")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise QvlaError("calib_jsonl", f"{path}: {error}", "UTF-8 text", "name a JSONL file") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def _read_image(record: dict[str, Any], key: str, where: str, folder: Path) -> np.ndarray:
    name = record.get(key)
    if not isinstance(name, str):
        raise QvlaError(f"{where}: {key}", _shown(record, key), "the path of an image, which the policy reads", _FIX)
    path = folder / name
    if not path.is_file():
        raise QvlaError(f"{where}: {key}", path, "an image file", _FIX)
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise QvlaError(f"{where}: {key}", error, "a readable image", _FIX) from error


def upright_camera(checkpoint: Checkpoint, robot: RobotDescription, name: str, height: int, width: int) -> CameraSpec:
    """The robot's image chain for frames that need no rotation."""
    return CameraSpec(
        name=name,
        height=height,
        width=width,
        rotate_180=False,
        jpeg_quality=robot.jpeg_quality,
        input_size=checkpoint.config.vision[0].image_size,
        center_crop_area=robot.center_crop_area,
        normalizations=checkpoint.normalizations,
    )


def _proprio(record: dict[str, Any], where: str, checkpoint: Checkpoint) -> np.ndarray:
    config, raw = checkpoint.config.decoding, record.get("proprio")
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (config.proprio_dim,) or not np.isfinite(values).all():
        expected = f"a list of {config.proprio_dim} finite numbers, un-normalised: the checkpoint reads them"
        raise QvlaError(f"{where}: proprio", _shown(record, "proprio"), expected, _FIX)
    statistics = checkpoint.statistics["proprio"]
    low, high = ("q01", "q99") if config.normalization == "q99" else ("min", "max")
    return normalize_proprioception(values, statistics[low], statistics[high], statistics.get("mask"))


def _shown(record: Any, key: str) -> str:
    value = record.get(key, "no such key") if isinstance(record, dict) else type(record).__name__
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
