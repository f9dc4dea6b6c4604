"""Hashes the inputs of a step, to know whether its result is current."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.stored import main_tensors
from qvla_offline.checkpoints.tensor_source import ADAPTER_FOLDER, config_file, origin_of
from qvla_ros.bundle import sha256_of

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
    base = origin_of(directory).base
    borrowed = (
        [] if base == directory else sorted({stored.file for stored in main_tensors(base).values()})
    )
    if config_file(directory).parent != directory:
        borrowed.append(config_file(directory))
    return combined_sha256([*_telling(directory), *_telling(directory / ADAPTER_FOLDER), *borrowed])


def _telling(directory: Path) -> list[Path]:
    return sorted(
        file for file in directory.glob("*") if file.suffix in _WEIGHTS or file.name in _OTHERS
    )


def combined_sha256(files: Iterable[Path]) -> str:
    """Hashes the names and contents of `files`, in order."""
    return value_sha256([[file.name, sha256_of(file)] for file in files])


def value_sha256(value: Any) -> str:
    """Hashes anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
