"""Reads and checks dataset_statistics.json.

It holds the ranges that actions and proprioception were normalised with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from qvla_offline.checkpoints.directory import require_checkpoint
from qvla_offline.checkpoints.known_keys import DATASET, LEVELS
from qvla_offline.checkpoints.stored import COMPLETE
from qvla_offline.checkpoints.tensor_source import config_file
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json


def key_of_suite(directory: Path, suite: str) -> str | None:
    """The dataset key for an evaluation in a LIBERO suite: the suite's name, with or without
    `_no_noops`.

    None where the one dataset that there is names no suite. QvlaError where none is the suite's, as
    upstream asserts.
    """
    require_checkpoint(directory)
    file = directory / "dataset_statistics.json"
    everything = (
        read_json(file, COMPLETE) if file.is_file() else read_json(config_file(directory), COMPLETE)
    )
    if not file.is_file() and isinstance(everything, dict):
        everything = everything.get("norm_stats")
    keys = sorted(everything) if isinstance(everything, dict) else []
    found = _key_called(suite, keys)
    if found is None and not (len(keys) == 1 and not keys[0].startswith("libero_")):
        fix = "name the suite that it was trained on, or say which dataset with --unnorm_key"
        raise QvlaError(
            "task_suite_name",
            suite,
            f"one that {directory} has statistics of: {', '.join(keys)}",
            fix,
        )
    return found


def choose_statistics(
    directory: Path,
    config_statistics: object,
    unnorm_key: str | None,
    lengths: Mapping[str, int | None],
    normalization: str,
) -> tuple[str, dict[str, Any]]:
    """Chooses a dataset's statistics: (its key, {"action": {...}, "proprio": {...}}).

    unnorm_key: the dataset; a LIBERO suite's name also finds `<suite>_no_noops`.

    dataset_statistics.json, where there is one, replaces what config.json holds (config_statistics:
    its `norm_stats`, or None). lengths: {part: how many numbers it has}, None where only the
    statistics know it, as for OpenVLA's actions. QvlaError names the file and the key unless every
    level that is read holds one finite number per dimension.
    """
    file = directory / "dataset_statistics.json"
    if config_statistics is not None and not file.is_file():
        file = directory / "config.json: norm_stats"
        everything = config_statistics
    else:
        everything = read_json(file, COMPLETE)
    if not isinstance(everything, dict):
        raise QvlaError(
            str(file), type(everything).__name__, "an object {dataset: statistics}", COMPLETE
        )
    if not everything:
        raise QvlaError(str(file), "no dataset", "an object {dataset: statistics}", COMPLETE)
    keys = ", ".join(sorted(everything))
    if unnorm_key is None:
        if len(everything) != 1:
            raise QvlaError(
                "unnorm_key", "none", f"one of {keys}", "say which dataset with --unnorm_key"
            )
        unnorm_key = next(iter(everything))
    found = _key_called(unnorm_key, everything)
    if found is None:
        raise QvlaError(
            "unnorm_key", unnorm_key, f"one of {keys}", "say which dataset with --unnorm_key"
        )
    entries = everything[found] if isinstance(everything[found], dict) else {}
    DATASET.check(entries, f"{file}: {found}.")
    for part, length in lengths.items():
        _check_levels(entries.get(part), length, normalization, f"{file}: {found}.{part}")
    return found, everything[found]


def _key_called(name: str, keys: Collection[str]) -> str | None:
    """The dataset of that name, or that of a LIBERO suite without idle steps.

    None if there is neither.
    """
    return next((key for key in (name, f"{name}_no_noops") if key in keys), None)


def _check_levels(entry: object, length: int | None, normalization: str, key: str) -> None:
    """Raises QvlaError unless `entry` has what bundle and calibration read.

    These are the levels in use, min and max, and the mask if there is one.
    """
    if not isinstance(entry, dict):
        raise QvlaError(key, type(entry).__name__, "an object with q01, q99, min and max", COMPLETE)
    LEVELS.check(entry, f"{key}.")
    names = ("min", "max", "q01", "q99") if normalization == "q99" else ("min", "max")
    levels = {
        name: parse(tuple[float, ...], entry.get(name), f"{key}.{name}", COMPLETE) for name in names
    }
    mask = entry.get("mask")
    masks = {} if mask is None else {"mask": parse(tuple[bool, ...], mask, f"{key}.mask", COMPLETE)}
    source = "its min" if length is None else "the checkpoint"
    expected = len(levels["min"]) if length is None else length
    for name, values in {**levels, **masks}.items():
        if len(values) != expected:
            raise QvlaError(
                f"{key}.{name}", f"{len(values)} values", f"{expected}, as {source} has", COMPLETE
            )
    for low, high in zip(names[::2], names[1::2], strict=True):
        if any(below > above for below, above in zip(levels[low], levels[high], strict=True)):
            raise QvlaError(
                key, f"a {low} above its {high}", f"{low} <= {high} everywhere", COMPLETE
            )
