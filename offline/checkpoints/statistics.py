"""dataset_statistics.json: the ranges that actions and proprioception were normalised with, checked before use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qvla_offline.checkpoints.config import DecodingConfig

from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json


def choose_statistics(file: Path, unnorm_key: str | None, oft: DecodingConfig, fix: str) -> tuple[str, dict[str, Any]]:
    """(dataset key, {"action": {...}, "proprio": {...}}); a LIBERO suite's name also finds `<suite>_no_noops`.

    Raises QvlaError naming the file and the key unless every level that is read holds one finite number per dimension.
    """
    everything = read_json(file, fix)
    if not isinstance(everything, dict):
        raise QvlaError(str(file), type(everything).__name__, "an object {dataset: statistics}", fix)
    keys = ", ".join(sorted(everything))
    if unnorm_key is None:
        if len(everything) != 1:
            raise QvlaError("unnorm_key", "none", f"one of {keys}", "say which dataset with --unnorm_key")
        unnorm_key = next(iter(everything))
    found = next((key for key in (unnorm_key, f"{unnorm_key}_no_noops") if key in everything), None)
    if found is None:
        raise QvlaError("unnorm_key", unnorm_key, f"one of {keys}", "say which dataset with --unnorm_key")
    for part, length in (("action", oft.action_dim), ("proprio", oft.proprio_dim)):
        entry = everything[found].get(part) if isinstance(everything[found], dict) else None
        _check_levels(entry, length, oft.normalization, f"{file}: {found}.{part}", fix)
    return found, everything[found]


def _check_levels(entry: object, length: int, normalization: str, key: str, fix: str) -> None:
    """What the bundle and calibration will read: the levels in use, min and max, and the mask if there is one."""
    if not isinstance(entry, dict):
        raise QvlaError(key, type(entry).__name__, "an object with q01, q99, min and max", fix)
    names = ("min", "max", "q01", "q99") if normalization == "q99" else ("min", "max")
    levels = {name: parse(tuple[float, ...], entry.get(name), f"{key}.{name}", fix) for name in names}
    mask = entry.get("mask")
    masks = {} if mask is None else {"mask": parse(tuple[bool, ...], mask, f"{key}.mask", fix)}
    for name, values in {**levels, **masks}.items():
        if len(values) != length:
            raise QvlaError(f"{key}.{name}", f"{len(values)} values", f"{length}, as config.json has", fix)
    for low, high in zip(names[::2], names[1::2], strict=True):
        if any(below > above for below, above in zip(levels[low], levels[high], strict=True)):
            raise QvlaError(key, f"a {low} above its {high}", f"{low} <= {high} everywhere", fix)
