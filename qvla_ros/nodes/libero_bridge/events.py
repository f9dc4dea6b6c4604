"""Prints the bridge's events, one JSON object a line (docs/architecture.md)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def emit(event: str, **fields: Any) -> None:
    """Prints one event on a line of standard output, at once; NaN becomes null."""
    print(json.dumps({"event": event, **without_nan(fields)}, allow_nan=False), flush=True)


def without_nan(value: Any) -> Any:
    """The same value, with null for each number in it that is not finite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
