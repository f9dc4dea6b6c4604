"""Hashes the inputs of a step, to know whether its result is current."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.directory import require_checkpoint
from qvla_offline.checkpoints.stored import main_tensors
from qvla_offline.checkpoints.tensor_source import ADAPTER_FOLDER, config_file, origin_of
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError

_WEIGHTS = (".safetensors", ".pt")
_OTHERS = (
    "config.json",
    "dataset_statistics.json",
    "preprocessor_config.json",
    "tokenizer.json",
    lora.CONFIG,
)


def checkpoint_sha256(directory: str | Path) -> str:
    """Hashes all that a checkpoint's numbers depend on.

    That is weights, configuration, statistics and adapter. If the directory holds an adapter alone,
    the base model's weights are hashed too.
    """
    directory = Path(directory)
    require_checkpoint(directory)
    base = origin_of(directory).base
    borrowed = (
        [] if base == directory else sorted({stored.file for stored in main_tensors(base).values()})
    )
    if config_file(directory).parent != directory:
        borrowed.append(config_file(directory))
    return combined_sha256([*_telling(directory), *_telling(directory / ADAPTER_FOLDER), *borrowed])


def require_same_checkpoint(key: str, sources: Mapping[str, str], checkpoint: str | Path) -> None:
    """Raises QvlaError if `sources`, which `key` states, name another checkpoint than this one."""
    made_from = sources.get("checkpoint_sha256")
    if made_from is None:
        return
    here = checkpoint_sha256(checkpoint)
    if made_from != here:
        raise QvlaError(
            key,
            f"made from a checkpoint with SHA-256 {made_from[:16]}...",
            f"made from {checkpoint}, {here[:16]}...",
            "name the checkpoint that it was made from with --pretrained_checkpoint",
        )


def _telling(directory: Path) -> list[Path]:
    return sorted(
        file for file in directory.glob("*") if file.suffix in _WEIGHTS or file.name in _OTHERS
    )


def combined_sha256(files: Iterable[Path]) -> str:
    """Hashes the names and contents of `files`, in order."""
    return value_sha256([[file.name, sha256_of(file)] for file in files])


def beginnings_sha256(files: Iterable[Path]) -> set[str]:
    """Hashes, as `combined_sha256` does, the first file, the first two, and so on to all."""
    entries = [[file.name, sha256_of(file)] for file in files]
    return {value_sha256(entries[:count]) for count in range(1, len(entries) + 1)}


def value_sha256(value: Any) -> str:
    """Hashes anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
