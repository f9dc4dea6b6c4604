"""SHA-256 of the inputs of a step: what a result was computed from, and whether it has to be computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qvla_ros.bundle import sha256_of

_WEIGHTS = (".safetensors", ".pt")
_OTHERS = ("config.json", "dataset_statistics.json", "preprocessor_config.json", "tokenizer.json")


def checkpoint_sha256(directory: str | Path) -> str:
    """Hash of everything in a checkpoint directory that its numbers depend on: weights, configuration, statistics."""
    files = sorted(f for f in Path(directory).iterdir() if f.suffix in _WEIGHTS or f.name in _OTHERS)
    return combined_sha256(files)


def combined_sha256(files: Iterable[Path]) -> str:
    """Hash over the names and contents of `files`, in order."""
    return value_sha256([[file.name, sha256_of(file)] for file in files])


def value_sha256(value: Any) -> str:
    """Hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
