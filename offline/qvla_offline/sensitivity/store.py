"""Reads and writes the sensitivity file: S[bits, channel] of every layer, and its sources."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json

SCHEMA_VERSION = 1
AGAIN = "compute it again with `qvla sensitivity`"
OVERFLOW = (  # weights are checked as they are read
    "what the layer reads, or its gradient, is too large for float32 though every weight is finite:"
    " check the calibration data, and that the checkpoint is a trained one"
)


@dataclass(frozen=True)
class Sensitivity:
    """Scores of how much every channel matters at every bit-width.

    scores: {module: float32 [len(bits), R]}, higher is worse; bits: ascending, below 16, where the
    score is 0. method: 'action' (squared normalised-action units), 'hessian' (its own units) or
    'imported' (a released .pt does not say). columns: {module: C}, empty when a released .pt was
    read. not_executed: modules that no sample reached. sources: SHA-256 of checkpoint, calibration
    and the robot's file. settings: seed, samples, probes, scheme and the like.
    """

    method: str
    bits: tuple[int, ...]
    scores: dict[str, np.ndarray]
    columns: dict[str, int] = field(default_factory=dict)
    not_executed: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def executed(self) -> dict[str, np.ndarray]:
        """Returns the scores of the layers that some sample reached."""
        return {name: score for name, score in self.scores.items() if name not in self.not_executed}


def side_file(path: str | Path) -> Path:
    """The file `X.pt.json`, in which `X.pt` keeps what the released layout has no place for."""
    return Path(f"{path}.json")


def write_sensitivity(path: str | Path, sensitivity: Sensitivity) -> None:
    """Writes `path`: safetensors with metadata, or for .pt the released layout.

    The released layout is {module: {'proxy_4': [R], ...}}; the same metadata go into the file that
    `side_file` names. QvlaError naming the layer if a score is not finite.
    """
    for name, score in sensitivity.scores.items():
        _require_finite(f"sensitivity of {name}", score)
    described = {k: v for k, v in asdict(sensitivity).items() if k != "scores"}
    # safetensors sorts by size; ties in the released greedy go by layer order
    order = list(sensitivity.scores)
    header = {"schema_version": SCHEMA_VERSION, "order": order, **described}
    text = json.dumps(header, allow_nan=False)  # before anything is written
    with atomic_file(path) as temporary:
        if temporary.suffix != ".pt":
            arrays = {
                name: np.ascontiguousarray(score, dtype=np.float32)
                for name, score in sensitivity.scores.items()
            }
            save_file(arrays, temporary, {"qvla_sensitivity": text})
            return
        from qvla_offline.sensitivity.released_layout import write_proxies

        write_proxies(temporary, sensitivity.bits, sensitivity.scores)
    with atomic_file(side_file(path)) as temporary:
        temporary.write_text(
            json.dumps({**header, "file_sha256": sha256_of(Path(path))}, indent=1) + "\n"
        )


def read_sensitivity(path: str | Path) -> Sensitivity:
    """Reads what `write_sensitivity` or the released script wrote.

    Raises QvlaError on anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise QvlaError("proxy_pt", path, "a sensitivity file", "make one with `qvla sensitivity`")
    sensitivity = _read_pt(path) if path.suffix == ".pt" else _read_safetensors(path)
    for name, score in sensitivity.scores.items():
        if score.ndim != 2 or len(score) != len(sensitivity.bits):
            raise QvlaError(
                f"{path}: {name}",
                f"shape {score.shape}",
                f"[{len(sensitivity.bits)}, channels]",
                AGAIN,
            )
        if not np.isfinite(score).all():
            raise QvlaError(
                f"{path}: {name}", "NaN or infinity among the scores", "finite scores", AGAIN
            )
    return sensitivity


def _read_safetensors(path: Path) -> Sensitivity:
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads((file.metadata() or {}).get("qvla_sensitivity", "{}"))
            names = list(file.keys())
            scores = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError) as error:
        raise QvlaError(str(path), error, "an intact sensitivity file", AGAIN) from error
    return _described(header, scores, path)


def _described(header: Any, scores: dict[str, np.ndarray], path: Path) -> Sensitivity:
    """Adds to the scores what the header in (or next to) their file holds."""
    version = header.get("schema_version") if isinstance(header, dict) else None
    if version != SCHEMA_VERSION:
        raise QvlaError(f"{path}: schema_version", version, str(SCHEMA_VERSION), AGAIN)

    def field_of(key: str, kind: Any) -> Any:
        return parse(kind, header.get(key), f"{path}: {key}", AGAIN)

    order = field_of("order", tuple[str, ...])
    settings = header.get("settings")
    if set(order) != set(scores):
        raise QvlaError(
            f"{path}: order", f"{len(order)} layers", f"the {len(scores)} layers with scores", AGAIN
        )
    if not isinstance(settings, dict):
        raise QvlaError(f"{path}: settings", type(settings).__name__, "an object", AGAIN)
    unpriced = sorted(set(order) - set(field_of("columns", dict[str, int])))
    if unpriced:
        raise QvlaError(
            f"{path}: columns", f"no row length of {unpriced[0]}", "one for every layer", AGAIN
        )
    parse(QuantizationScheme, settings.get("scheme", {}), f"{path}: settings.scheme", AGAIN)
    return Sensitivity(
        field_of("method", str),
        field_of("bits", tuple[int, ...]),
        {name: scores[name] for name in order},
        field_of("columns", dict[str, int]),
        field_of("not_executed", tuple[str, ...]),
        field_of("sources", dict[str, str]),
        settings,
    )


def _read_pt(path: Path) -> Sensitivity:
    from qvla_offline.sensitivity.released_layout import read_proxies

    bits, scores = read_proxies(path, AGAIN)
    released = Sensitivity("imported", bits, scores)
    side = side_file(path)
    if not side.is_file():
        return released
    fix = (
        f"delete {side.name} if the .pt came from elsewhere, else compute both again "
        "with `qvla sensitivity`"
    )
    header = read_json(side, fix)
    sensitivity = _described(header, released.scores, side)
    if header.get("file_sha256") != sha256_of(path):
        raise QvlaError(
            f"{side}: file_sha256", "that of another file", f"the hash of {path.name}", fix
        )
    if sensitivity.bits != released.bits:
        raise QvlaError(
            f"{side}: bits",
            list(sensitivity.bits),
            f"{list(released.bits)}, as {path.name} has",
            fix,
        )
    return sensitivity


def _require_finite(key: str, score: np.ndarray) -> None:
    if not np.isfinite(score).all():
        found = "NaN" if np.isnan(score).any() else "infinity"
        raise QvlaError(key, found, "finite numbers", OVERFLOW)
