"""Reads observations from JSONL.

A line is one object, {"text", "image", "wrist_image", "proprio"}; paths are relative to the file.
Images are upright camera frames of any size (what a person sees; LIBERO's raw frames are upside
down, so turn them first). `text` may also be a whole prompt, as in the files for the released
scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.checkpoints.directory import download, is_hub_id
from qvla_offline.datasets.observed import Needs, Observed, decoded_image
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse

IMAGE_KEYS = ("image", "wrist_image")
_FIX = "correct the line, or pass --skip_bad_lines to go on without it"


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (name for errors, text) of every line that is not blank.

    QvlaError if there is no such file, or it is no text.
    """
    if not path.is_file():
        fix = "name one with --calib_jsonl"
        if is_hub_id(str(path)) and not path.parent.exists():
            command = download(str(path), "dataset")
            fix = f"if it is on the Hugging Face hub: {command}, and name that folder"
        raise QvlaError("calib_jsonl", path, "a JSONL file", fix)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise QvlaError(
            "calib_jsonl", f"{path}: {error}", "UTF-8 text", "name a JSONL file"
        ) from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def read_line(line: str, where: str, folder: Path, needs: Needs) -> Observed:
    """Reads one line. folder: of the file.

    QvlaError if the line is not JSON, lacks a key or names a missing image.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QvlaError(where, error, "one JSON object", _FIX) from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise QvlaError(f"{where}: text", _shown(record, "text"), "an instruction", _FIX)
    count = len(needs.cameras)
    if count > len(IMAGE_KEYS):
        raise QvlaError(
            "num_images",
            count,
            f"at most {len(IMAGE_KEYS)} in a JSONL file",
            "use a LeRobot dataset",
        )
    images = tuple(_read_image(record, key, where, folder) for key in IMAGE_KEYS[:count])
    return Observed(
        where, record["text"], images, (False,) * count, _proprioception(record, where, needs)
    )


def image_files(path: Path, max_samples: int | None) -> list[Path]:
    """Lists the existing image files that the first `max_samples` lines name."""
    found = []
    for _, line in list(lines(path))[:max_samples]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found += [
                path.parent / record[key] for key in IMAGE_KEYS if isinstance(record.get(key), str)
            ]
    return [image for image in found if image.is_file()]


def _read_image(record: dict[str, Any], key: str, where: str, folder: Path) -> np.ndarray:
    name = record.get(key)
    if not isinstance(name, str):
        raise QvlaError(
            f"{where}: {key}",
            _shown(record, key),
            "the path of an image, which the policy reads",
            _FIX,
        )
    path = folder / name
    if not path.is_file():
        raise QvlaError(f"{where}: {key}", path, "an image file", _FIX)
    return decoded_image(path.read_bytes(), f"{where}: {key}", _FIX)


def _proprioception(record: dict[str, Any], where: str, needs: Needs) -> np.ndarray:
    if not needs.proprioception:
        return np.empty(0)
    try:
        numbers = parse(tuple[float, ...], record.get("proprio"), "proprio", _FIX)
    except QvlaError:
        numbers = ()
    values = np.array(numbers, dtype=np.float64)
    if values.shape != (len(needs.proprioception),) or not np.isfinite(values).all():
        expected = (
            f"a list of {len(needs.proprioception)} finite numbers, un-normalised: "
            "the checkpoint reads them"
        )
        raise QvlaError(f"{where}: proprio", _shown(record, "proprio"), expected, _FIX)
    return values


def _shown(record: Any, key: str) -> str:
    value = record.get(key, "no such key") if isinstance(record, dict) else type(record).__name__
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
