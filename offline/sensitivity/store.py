"""The sensitivity file: S[bits, channel] of every layer, with what it was computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qvla_offline.torch_file import load_pt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError

SCHEMA_VERSION = 1
AGAIN = "compute it again with `qvla sensitivity`"


@dataclass(frozen=True)
class Sensitivity:
    """How much every channel matters at every bit-width.

    scores: {module: float32 [len(bits), R]}, higher is worse; bits: ascending, below 16, where the score is 0. method:
    'action' (squared normalised-action units), 'hessian' (its own units) or 'imported' (a .pt, which does not say).
    columns: {module: C}, empty when a .pt was read. not_executed: modules that no sample reached. sources: SHA-256 of
    checkpoint and calibration. settings: seed, samples, probes, scheme and the like.
    """

    method: str
    bits: tuple[int, ...]
    scores: dict[str, np.ndarray]
    columns: dict[str, int] = field(default_factory=dict)
    not_executed: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def executed(self) -> dict[str, np.ndarray]:
        """The scores of the layers that some sample reached."""
        return {name: score for name, score in self.scores.items() if name not in self.not_executed}


def write_sensitivity(path: str | Path, sensitivity: Sensitivity) -> None:
    """Write `path`: the released layout {module: {'proxy_4': [R], ...}} for .pt, else safetensors with metadata."""
    with atomic_file(path) as temporary:
        if temporary.suffix == ".pt":
            torch.save(
                {
                    name: {
                        f"proxy_{b}": torch.from_numpy(row.copy())
                        for b, row in zip(sensitivity.bits, score, strict=True)
                    }
                    for name, score in sensitivity.scores.items()
                },
                temporary,
            )
            return
        described = {k: v for k, v in asdict(sensitivity).items() if k != "scores"}
        order = list(sensitivity.scores)  # safetensors sorts by size; ties in the released greedy go by layer order
        metadata = {"qvla_sensitivity": json.dumps({"schema_version": SCHEMA_VERSION, "order": order, **described})}
        arrays = {name: np.ascontiguousarray(score, dtype=np.float32) for name, score in sensitivity.scores.items()}
        save_file(arrays, temporary, metadata)


def read_sensitivity(path: str | Path) -> Sensitivity:
    """Read what `write_sensitivity` or the released script wrote. Raises QvlaError on anything else."""
    path = Path(path)
    if not path.is_file():
        raise QvlaError("proxy_pt", path, "a sensitivity file", "make one with `qvla sensitivity`")
    return _read_released(path) if path.suffix == ".pt" else _read_safetensors(path)


def _read_safetensors(path: Path) -> Sensitivity:
    try:
        with safe_open(path, "numpy") as file:
            described = json.loads((file.metadata() or {}).get("qvla_sensitivity", "{}"))
            scores = {name: file.get_tensor(name) for name in described.get("order", [])}
    except (SafetensorError, ValueError) as error:
        raise QvlaError(str(path), error, "an intact sensitivity file", AGAIN) from error
    version = described.get("schema_version")
    if version != SCHEMA_VERSION:
        raise QvlaError(f"{path}: schema_version", version, str(SCHEMA_VERSION), AGAIN)
    return Sensitivity(
        described["method"],
        tuple(described["bits"]),
        scores,
        described["columns"],
        tuple(described["not_executed"]),
        described["sources"],
        described["settings"],
    )


def _read_released(path: Path) -> Sensitivity:
    document = load_pt(path, "a .pt file of tensors", AGAIN)
    if not isinstance(document, Mapping) or not document or not all(map(_has_proxies, document.values())):
        raise QvlaError(str(path), type(document).__name__, "{module: {'proxy_4': tensor, ...}}", AGAIN)
    parsed = {
        name: {
            int(key.removeprefix("proxy_")): tensor.float().numpy() for key, tensor in entry.items() if _is_proxy(key)
        }
        for name, entry in document.items()
    }
    widths = sorted({bits for entry in parsed.values() for bits in entry if bits < 16})
    for name, entry in parsed.items():
        missing = [bits for bits in widths if bits not in entry]
        if missing:
            raise QvlaError(f"{path}: {name}", f"no score for {missing} bits", f"scores for {widths}", AGAIN)
    scores = {name: np.stack([entry[bits] for bits in widths]) for name, entry in parsed.items()}
    return Sensitivity("imported", tuple(widths), scores)


def _has_proxies(entry: Any) -> bool:
    """Whether it holds scores, all of one length."""
    rows = [row for key, row in entry.items() if _is_proxy(key)] if isinstance(entry, Mapping) else []
    return all(isinstance(row, torch.Tensor) and row.ndim == 1 for row in rows) and len({len(row) for row in rows}) == 1


def _is_proxy(key: str) -> bool:
    return key.startswith("proxy_") and key.removeprefix("proxy_").isdigit()
