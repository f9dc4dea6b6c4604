"""Reads and writes the released scripts' sensitivity file.

It is a .pt of tensors, {module: {'proxy_4': scores}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qvla_offline.torch_file import load_pt
from qvla_ros.errors import QvlaError


def write_proxies(path: Path, bits: Sequence[int], scores: Mapping[str, np.ndarray]) -> None:
    """Writes {module: {'proxy_4': float [R], ...}}. scores: {module: [len(bits), R]}."""
    entries = {
        name: {
            f"proxy_{b}": torch.from_numpy(row.copy()) for b, row in zip(bits, score, strict=True)
        }
        for name, score in scores.items()
    }
    torch.save(entries, path)


def read_proxies(path: Path, fix: str) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    """Reads the bit-widths and the scores of a released file.

    The bit-widths are below 16 and ascending; scores: {module: float32 [len(bits), R]}. Raises
    QvlaError with `fix` for anything else.
    """
    document = load_pt(path, "a .pt file of tensors", fix)
    if (
        not isinstance(document, Mapping)
        or not document
        or not all(map(_has_proxies, document.values()))
    ):
        raise QvlaError(
            str(path), type(document).__name__, "{module: {'proxy_4': tensor, ...}}", fix
        )
    parsed = {
        name: {
            int(key.removeprefix("proxy_")): tensor.float().numpy()
            for key, tensor in entry.items()
            if _is_proxy(key)
        }
        for name, entry in document.items()
    }
    widths = sorted({bits for entry in parsed.values() for bits in entry if bits < 16})
    for name, entry in parsed.items():
        missing = [bits for bits in widths if bits not in entry]
        if missing:
            raise QvlaError(
                f"{path}: {name}", f"no score for {missing} bits", f"scores for {widths}", fix
            )
    scores = {name: np.stack([entry[bits] for bits in widths]) for name, entry in parsed.items()}
    return tuple(widths), scores


def _has_proxies(entry: Any) -> bool:
    """Whether the entry holds scores, all of one length."""
    rows = (
        [row for key, row in entry.items() if _is_proxy(key)] if isinstance(entry, Mapping) else []
    )
    return (
        all(isinstance(row, torch.Tensor) and row.ndim == 1 for row in rows)
        and len({len(row) for row in rows}) == 1
    )


def _is_proxy(key: str) -> bool:
    return key.startswith("proxy_") and key.removeprefix("proxy_").isdigit()
