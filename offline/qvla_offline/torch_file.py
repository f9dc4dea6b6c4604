"""Reading .pt files that others made: tensors only, never code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from qvla_ros.errors import QvlaError


def load_pt(path: Path, expected: str, fix: str, mapped: bool = False) -> Any:
    """The content of a .pt file, loaded with weights_only; QvlaError if that fails. mapped: tensors
    lie in the file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        Exception
    ) as error:  # damaged bytes end the restricted unpickler in any of a dozen exception types
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        told = "something other than tensors" if isinstance(error, pickle.UnpicklingError) else said
        raise QvlaError(str(path), told, expected, fix) from error
