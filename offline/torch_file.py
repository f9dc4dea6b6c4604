"""Reading .pt files that others made: tensors only, never code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from qvla_ros.errors import QvlaError


def load_pt(path: Path, expected: str, fix: str) -> Any:
    """The content of a .pt file, loaded with weights_only; QvlaError if that fails."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = "something other than tensors" if isinstance(error, pickle.UnpicklingError) else error
        raise QvlaError(str(path), reason, expected, fix) from error
