"""preprocessor_config.json: the means and deviations of the ViTs, and that no number is lost.

Camera images are square when the image processor gets them, so that of its resizing only the size
and the interpolation count, and neither cropping nor letterboxing changes anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.known_keys import PREPROCESSOR
from qvla_offline.checkpoints.stored import COMPLETE, read_object
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.strict_json import parse

Triple = tuple[float, float, float]
Normalization = tuple[Triple, Triple]
_BICUBIC = 3  # as Pillow and torchvision number it
_STRATEGIES = Literal["resize-naive", "resize-crop", "letterbox"]


def read_normalizations(directory: Path, config: PolicyConfig) -> tuple[Normalization, ...]:
    """(mean, std) per vision backbone of a checkpoint directory.

    The stored `tvf_normalize_params` win over `means` and `stds`, as upstream. QvlaError for sizes
    and interpolations that this project does not run.
    """
    file = directory / "preprocessor_config.json"
    data = read_object(file)
    PREPROCESSOR.check(data, f"{file}: ")
    sizes = [vit.image_size for vit in config.vision]
    _check_resizing(data, file, sizes)
    if "tvf_normalize_params" in data:
        key = f"{file}: tvf_normalize_params"
        entries = _objects(data["tvf_normalize_params"], key)
        pairs = [[entry.get("mean"), entry.get("std")] for entry in entries]
    else:
        key = f"{file}: means and stds"
        lists = [
            parse(tuple[Triple, ...], data.get(name), f"{file}: {name}", COMPLETE)
            for name in ("means", "stds")
        ]
        pairs = [list(pair) for pair in zip_longest(*lists)]
    if len(pairs) != len(sizes):
        expected = f"{len(sizes)} entries, one per vision backbone"
        raise QvlaError(key, f"{len(pairs)} entries", expected, COMPLETE)
    found: tuple[Normalization, ...] = parse(tuple[Normalization, ...], pairs, key, COMPLETE)
    for _, deviations in found:
        if min(deviations) <= 0:
            raise QvlaError(key, f"the deviations {deviations}", "numbers above 0", COMPLETE)
    return found


def _check_resizing(data: Mapping[str, Any], file: Path, sizes: list[int]) -> None:
    """Raises QvlaError unless images become squares of `sizes` by bicubic interpolation.

    Warns of a strategy for images that are not square: none comes here.
    """
    key = "image_resize_strategy"
    strategy = parse(_STRATEGIES | None, data.get(key), f"{file}: {key}", COMPLETE)
    boxed = parse(bool | None, data.get("tvf_do_letterbox"), f"{file}: tvf_do_letterbox", COMPLETE)
    if strategy not in (None, "resize-naive") or boxed:
        text = f"{file}: {strategy or 'letterbox'} changes nothing here: images are made square"
        warnings.warn(f"{text} before", QvlaWarning, stacklevel=4)
    for name, size_of in (
        ("input_sizes", lambda entry: entry),
        ("tvf_resize_params", lambda entry: _get(entry, "size")),
        ("tvf_crop_params", lambda entry: _get(entry, "output_size")),
    ):
        entries = data.get(name)
        if entries is not None:
            found = [_side(size_of(entry)) for entry in _list(entries, f"{file}: {name}")]
            if found != sizes:
                expected = f"squares of {sizes}, after config.json"
                raise QvlaError(f"{file}: {name}", entries, expected, COMPLETE)
    ways = _list(data.get("interpolations") or [], f"{file}: interpolations")
    resizing = _list(data.get("tvf_resize_params") or [], f"{file}: tvf_resize_params")
    for way in [*ways, *(_get(entry, "interpolation") for entry in resizing)]:
        if way not in ("bicubic", _BICUBIC, None):
            raise QvlaError(f"{file}: interpolation", way, "bicubic: no other is run", COMPLETE)


def _side(size: Any) -> int | None:
    """The side of a square, written as S, [S, S], [3, S, S] or {"height": S, "width": S}."""
    if isinstance(size, dict):
        size = [size.get("height", size.get("shortest_edge")), size.get("width")]
    sides = size if isinstance(size, list) else [size]
    last = [side for side in sides[-2:] if side is not None]  # [3, S, S] begins with the channels
    if not last or not isinstance(last[0], int) or last.count(last[0]) < len(last):
        return None
    return last[0]


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise QvlaError(key, type(value).__name__, "a list", COMPLETE)
    return value


def _objects(value: Any, key: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return value
    expected = "a list of objects with mean and std"
    raise QvlaError(key, type(value).__name__, expected, COMPLETE)
