"""A directory of layer statistics: a file for each block, and an index once all are there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from qvla_offline.fingerprint import require_same_checkpoint, value_sha256
from qvla_offline.quantization.quantizer import GATHER, LayerStatistics, quantizer_of
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import read_json

INDEX = "statistics.json"
SCHEMA_VERSION = 1
_AGAIN = "gather them again with `qvla statistics`"
TENSORS = tuple(field.name for field in fields(LayerStatistics) if field.name != "samples")


class StatisticsWriter:
    """Writes the directory block by block; goes on with one that was begun with equal inputs."""

    def __init__(self, directory: Path, described: Mapping[str, Any]) -> None:
        """described: sources and settings, all that the numbers depend on."""
        self.directory = directory
        self.described = dict(described)
        self._fingerprint = value_sha256([self.described, TENSORS])
        directory.mkdir(parents=True, exist_ok=True)
        (directory / INDEX).unlink(missing_ok=True)

    def finished(self) -> set[str]:
        """The blocks that an earlier run has left whole."""
        blocks = set()
        for file in self.directory.glob("*.safetensors"):
            metadata = _metadata(file)
            if metadata.get("fingerprint") == self._fingerprint:
                blocks.add(str(metadata["block"]))
        return blocks

    def save(self, block: str, layers: Mapping[str, LayerStatistics]) -> None:
        """Writes one block's file, whole or not at all."""
        tensors = {
            f"{name}/{key}": tensor.contiguous()
            for name, statistics in layers.items()
            for key in TENSORS
            if (tensor := getattr(statistics, key)) is not None
        }
        metadata = {
            "fingerprint": self._fingerprint,
            "block": block,
            "samples": {name: statistics.samples for name, statistics in layers.items()},
        }
        with atomic_file(self.directory / f"{block or 'policy'}.safetensors") as temporary:
            save_file(tensors, temporary, {"qvla_statistics": json.dumps(metadata)})

    def close(self) -> None:
        """Writes the index: the directory is whole now. Files of other runs go."""
        layers: dict[str, str] = {}
        for file in sorted(self.directory.glob("*.safetensors")):
            metadata = _metadata(file)
            if metadata.get("fingerprint") != self._fingerprint:
                file.unlink()
                continue
            layers |= dict.fromkeys(metadata["samples"], file.name)
        index = {"schema_version": SCHEMA_VERSION, **self.described, "layers": layers}
        with atomic_file(self.directory / INDEX) as temporary:
            temporary.write_text(json.dumps(index, indent=1, allow_nan=False) + "\n")


class StoredStatistics(Mapping[str, LayerStatistics]):
    """{module: its statistics}, each read from its file when it is asked for."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        index = read_json(self.directory / INDEX, _AGAIN)
        if not isinstance(index, dict) or index.get("schema_version") != SCHEMA_VERSION:
            raise QvlaError(
                f"statistics {self.directory}",
                "another layout",
                f"version {SCHEMA_VERSION}",
                _AGAIN,
            )
        self.sources: dict[str, str] = index["sources"]
        self._files: dict[str, str] = index["layers"]

    @property
    def sha256(self) -> str:
        """Hashes the index, which names all that the numbers depend on."""
        return sha256_of(self.directory / INDEX)

    def __getitem__(self, name: str) -> LayerStatistics:
        file = self.directory / self._files[name]
        with safe_open(file, "pt") as opened:
            held = set(opened.keys())
            tensors = {
                key: opened.get_tensor(f"{name}/{key}")
                for key in TENSORS
                if f"{name}/{key}" in held
            }
        return LayerStatistics(_metadata(file)["samples"][name], **tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files  # Mapping's own would read the tensors


def statistics_for(
    scheme: QuantizationScheme, directory: str | Path | None, checkpoint: str | Path
) -> StoredStatistics | None:
    """Opens the statistics that the scheme's quantizer needs; None if it needs none.

    Raises QvlaError if it needs some and no directory is named, or one of another checkpoint.
    """
    needs = quantizer_of(scheme).needs
    if not needs:
        return None
    if directory is None:
        raise QvlaError(
            "statistics",
            f"none; no {', '.join(sorted(needs))}",
            f"what quantizer {scheme.quantizer} reads of the calibration samples",
            GATHER,
        )
    statistics = StoredStatistics(directory)
    require_same_checkpoint(f"statistics {directory}", statistics.sources, checkpoint)
    return statistics


def _metadata(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as opened:
        found: dict[str, Any] = json.loads((opened.metadata() or {}).get("qvla_statistics", "{}"))
    return found
