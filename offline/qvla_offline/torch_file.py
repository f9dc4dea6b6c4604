"""Reads .pt files that others made: tensors only, never code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from qvla_ros.errors import QvlaError


def load_pt(path: Path, expected: str, fix: str, mapped: bool = False) -> Any:
    """Reads a .pt file with weights_only; QvlaError if that fails.

    mapped: the tensors stay in the file, which is mapped into memory.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        Exception
    ) as error:  # damaged bytes end the restricted unpickler in any of a dozen exception types
        found = f"{type(error).__name__}: {error}".partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):
            found = "something other than tensors"
        raise QvlaError(str(path), found, expected, fix) from error
