"""Scales and biases trained for fixed codes: their file, and how a layer takes them.

The file holds no codes. The quantizer makes them again from checkpoint, bits, scheme and
statistics; their hash tells whether the scales belong to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError

SCHEMA_VERSION = 1
AGAIN = "train them again with `qvla train_scales`"
_METADATA = "qvla_trained_scales"
_BIAS = "bias_correction"


@dataclass(frozen=True)
class TrainedLayer:
    """What training gives to one layer.

    codes_sha256: of the codes that the scales belong to. scales: {bits: positive [n, G]} for the
    rows of that bit-width, in the scheme's scale type. bias_correction: float32 [R], to be added
    to the checkpoint's bias; None for a layer without one.
    """

    codes_sha256: str
    scales: dict[int, Tensor]
    bias_correction: Tensor | None = None

    def put_into(self, layer: QuantizedLayer, key: str) -> QuantizedLayer:
        """Returns `layer` with these scales and biases; QvlaError if its codes are others.

        key: the layer's name in the error.
        """
        if codes_sha256(layer) != self.codes_sha256:
            raise QvlaError(
                key,
                "scales for other codes than those made here",
                "the same codes (the machine and its number of threads may decide the last bit)",
                f"{AGAIN}, on this machine",
            )
        codes = {b: replace(c, scales=self.scales[b]) for b, c in layer.codes.items()}
        return replace(layer, codes=codes, bias_correction=self.bias_correction)


@dataclass(frozen=True)
class TrainedScales:
    """Scales and biases of a checkpoint's layers, and what they were trained with.

    sources: SHA-256 of checkpoint, bits, scheme and statistics. settings: options and result of the
    training. path: of the file they were read from.
    """

    layers: Mapping[str, TrainedLayer]
    sources: dict[str, str]
    settings: dict[str, Any]
    path: Path | None = None

    def put_into(self, module: str, layer: QuantizedLayer) -> QuantizedLayer:
        """Returns `layer` as trained; as it is if it was not trained (no sample reaches it)."""
        trained = self.layers.get(module)
        return layer if trained is None else trained.put_into(layer, f"{self.path}: {module}")

    @property
    def sha256(self) -> str:
        """Hashes the file."""
        assert self.path is not None
        return sha256_of(self.path)


UNTRAINED = TrainedScales({}, {}, {})  # leaves every layer as the quantizer made it


def codes_sha256(layer: QuantizedLayer) -> str:
    """Hashes the codes of `layer`, and which rows they are of."""
    digest = hashlib.sha256(str(layer.shape).encode())
    for bits in sorted(layer.codes):
        codes = layer.codes[bits]
        digest.update(f"{bits} {codes.inputs_per_scale}".encode())
        for part in (layer.rows[bits], codes.codes):
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sources_of(
    checkpoint: str | Path,
    bits: Mapping[str, np.ndarray],
    scheme: QuantizationScheme,
    statistics: StoredStatistics | None,
) -> dict[str, str]:
    """Returns the hashes of all that the codes follow from. bits: {module: [R]}."""
    rows = {name: np.asarray(row).tolist() for name, row in sorted(bits.items())}
    sources = {
        "checkpoint_sha256": checkpoint_sha256(checkpoint),
        "bits_sha256": value_sha256(rows),
        "scheme_sha256": value_sha256(scheme.described()),
    }
    return sources | made_with(statistics)


def made_with(
    statistics: StoredStatistics | None, trained: TrainedScales = UNTRAINED
) -> dict[str, str]:
    """Returns the hashes of what a quantizer read, and of trained scales, where there are any."""
    sources = {} if statistics is None else {"statistics_sha256": statistics.sha256}
    return sources if trained.path is None else sources | {"trained_scales_sha256": trained.sha256}


def write_trained_scales(path: str | Path, trained: TrainedScales) -> None:
    """Writes the file, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, layer in trained.layers.items():
        tensors |= {f"{name}/scales_{b}": scales for b, scales in layer.scales.items()}
        if layer.bias_correction is not None:
            tensors[f"{name}/{_BIAS}"] = layer.bias_correction
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "schema_version": SCHEMA_VERSION,
        "sources": trained.sources,
        "settings": trained.settings,
        "codes_sha256": {name: layer.codes_sha256 for name, layer in trained.layers.items()},
    }
    text = json.dumps(header, allow_nan=False)
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, {_METADATA: text})


def read_trained_scales(path: str | Path) -> TrainedScales:
    """Reads what `write_trained_scales` wrote; QvlaError for anything else."""
    path = Path(path)
    if not path.is_file():
        fix = "make one with `qvla train_scales`"
        raise QvlaError("trained_scales", path, "a file of trained scales", fix)
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise QvlaError(str(path), error, "an intact file of trained scales", AGAIN) from error
    if header.get("schema_version") != SCHEMA_VERSION:
        found = header.get("schema_version")
        raise QvlaError(f"{path}: schema_version", found, str(SCHEMA_VERSION), AGAIN)
    layers: dict[str, TrainedLayer] = {
        name: TrainedLayer(codes, {}, tensors.get(f"{name}/{_BIAS}"))
        for name, codes in header["codes_sha256"].items()
    }
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition("/")
        usable = tensor.isfinite().all() and (kind == _BIAS or (tensor > 0).all())
        if not usable:
            raise QvlaError(f"{path}: {key}", "NaN, infinity or a scale of 0", "numbers", AGAIN)
        if kind != _BIAS:
            layers[name].scales[int(kind.removeprefix("scales_"))] = tensor
    return TrainedScales(layers, header["sources"], header["settings"], path)


def trained_scales_for(
    path: str | Path | None,
    checkpoint: str | Path,
    bits: Mapping[str, np.ndarray],
    scheme: QuantizationScheme,
    statistics: StoredStatistics | None,
) -> TrainedScales:
    """Opens the trained scales at `path`; UNTRAINED for None.

    Raises QvlaError naming what differs if they were trained with another checkpoint, other bits,
    another scheme or other statistics.
    """
    if path is None:
        return UNTRAINED
    trained = read_trained_scales(path)
    here = sources_of(checkpoint, bits, scheme, statistics)
    for key in sorted({*here, *trained.sources}):
        if here.get(key) != trained.sources.get(key):
            what = key.removesuffix("_sha256")
            raise QvlaError(
                f"trained_scales {path}",
                f"trained with another {what}" if what == "checkpoint" else f"for other {what}",
                f"the {what} in use, {str(here.get(key))[:16]}...",
                f"name the {what} that they were trained with, or {AGAIN}",
            )
    return trained
