"""Prints what promoting rows to fill their groups has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from qvla_offline.gates.costs import SCALE_BYTES
from qvla_offline.quantization.containers import layer_bytes
from qvla_offline.quantization.scheme import QuantizationScheme


def print_promotion(
    asked: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    columns: Mapping[str, int],
    scheme: QuantizationScheme,
    compute_dtype: str,
) -> None:
    """Prints how many rows are stored with more bits than asked, and the bytes; nothing if none is.

    asked, stored: {module: bits [R]}. columns: {module: C} of the layers that are stored.
    """
    moved: Counter[tuple[int, int]] = Counter()
    added_bytes = 0
    for name, inputs in columns.items():
        before = np.asarray(asked[name])
        after = np.asarray(stored[name])
        changed = before != after
        moved.update(zip(before[changed].tolist(), after[changed].tolist(), strict=True))
        added_bytes += layer_bytes(after, inputs, scheme, SCALE_BYTES[compute_dtype])
        added_bytes -= layer_bytes(before, inputs, scheme, SCALE_BYTES[compute_dtype])
    if moved:
        ways = ", ".join(
            f"{n} from {low} to {high} bits" for (low, high), n in sorted(moved.items())
        )
        print(f"rows promoted to fill groups: {ways}; {added_bytes:+,} bytes")
