"""Reads and writes the gates file: one bit-width per output channel, and where it came from.

Reads the layouts of the released scripts too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.quantization.scheme import BIT_WIDTHS, QuantizationScheme
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json

SCHEMA_VERSION = 1
_AGAIN = "make the gates again with `qvla gates`"
_OPTIONAL_PREFIXES = ("language_model.", "vision_backbone.")


@dataclass(frozen=True)
class Gates:
    """Bit-widths of a whole checkpoint.

    layers: {module: uint8 [R]}. method: e.g. 'action/optimal', 'uniform'. budget: what was asked
    and reached, in bits per weight with scales. sources: SHA-256 of checkpoint, calibration and
    sensitivity, where known. not_executed: modules that no sample reached; they keep 16 bits and
    count in no budget. scheme: the storage that was priced.
    """

    layers: dict[str, np.ndarray]
    method: str
    budget: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    not_executed: tuple[str, ...] = ()
    scheme: dict[str, Any] = field(default_factory=dict)

    def histogram(self) -> dict[int, int]:
        """Counts the channels at each bit-width that occurs."""
        if not self.layers:
            return {}
        counts = np.bincount(np.concatenate(list(self.layers.values())))
        return {bits: int(count) for bits, count in enumerate(counts) if count}


def widths_in(layers: Mapping[str, np.ndarray]) -> set[int]:
    """The bit-widths that occur in gates {module: bits [R]}."""
    return {int(bits) for row in layers.values() for bits in np.unique(row)}


def uniform(layer_rows: Mapping[str, int], bits: int) -> Gates:
    """Makes gates of one bit-width everywhere: 16 for the float policy, 4 or 8 as baselines.

    layer_rows: {module: R}.
    """
    layers = {name: np.full(rows, bits, dtype=np.uint8) for name, rows in layer_rows.items()}
    return Gates(_checked(layers, "uniform"), "uniform", {"bits": bits})


def write_gates(path: str | Path, gates: Gates) -> None:
    """Writes gates.json, schema version 1."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "method": gates.method,
        "budget": gates.budget,
        "sources": gates.sources,
        "scheme": gates.scheme,
        "bit_histogram": {str(bits): count for bits, count in gates.histogram().items()},
        "not_executed": list(gates.not_executed),
        "layers": {name: bits.tolist() for name, bits in gates.layers.items()},
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document, allow_nan=False, separators=(",", ":")) + "\n")


def read_gates(path: str | Path, layer_rows: Mapping[str, int] | None = None) -> Gates:
    """Reads gates.json, or a released file.

    A released file is {module: [bits]}, the same under 'assign', or a .pt of tensors.

    With layer_rows = {module: R} of a checkpoint, the gates are matched to it (see match_layers) in
    its order. Raises QvlaError naming the layer for a wrong length, an unknown bit-width or an
    unknown layer.
    """
    path = Path(path)
    if not path.is_file():
        raise QvlaError("gates_path", path, "a gates file", "make one with `qvla gates`")
    document = _read_document(path)
    if "schema_version" in document:
        gates = _from_schema(document, path)
    else:
        layers = document.get("assign", document)
        gates = Gates(_checked(layers, path), "imported")
    return gates if layer_rows is None else match_layers(gates, layer_rows)


def match_layers(gates: Gates, layer_rows: Mapping[str, int]) -> Gates:
    """Returns the gates under the checkpoint's own module names, all covered, lengths checked.

    A gate may leave out the prefix `language_model.` or `vision_backbone.`, as the released reader
    allows.
    """
    names = {alias: name for name in layer_rows for alias in _aliases(name)}
    matched: dict[str, np.ndarray] = {}
    for alias, bits in gates.layers.items():
        name = alias if alias in layer_rows else names.get(alias)
        if name is None:
            raise QvlaError(
                f"gates[{alias!r}]",
                "a layer that the checkpoint lacks",
                f"one of its {len(layer_rows)} layers, e.g. {next(iter(layer_rows), None)}",
                "assign the gates again for this checkpoint",
            )
        if len(bits) != layer_rows[name]:
            raise QvlaError(
                f"gates[{alias!r}]",
                f"{len(bits)} bit-widths",
                f"{layer_rows[name]}, one per output channel",
                "assign the gates again for this checkpoint",
            )
        matched[name] = bits
    missing = [name for name in layer_rows if name not in matched]
    if missing:
        raise QvlaError(
            "gates",
            f"no entry for {len(missing)} layers, first {missing[0]}",
            "an entry for every Linear and Conv2d of the vision backbone and the language model",
            "assign the gates again, or list those layers with 16 bits per channel to "
            "leave them as they are",
        )
    ordered = {name: matched[name] for name in layer_rows}
    return Gates(
        ordered, gates.method, gates.budget, gates.sources, gates.not_executed, gates.scheme
    )


def _aliases(name: str) -> Iterable[str]:
    return (name.replace(prefix, "", 1) for prefix in _OPTIONAL_PREFIXES if name.startswith(prefix))


def _read_document(path: Path) -> dict[str, Any]:
    if path.suffix == ".pt":
        from qvla_offline.torch_file import load_pt  # torch takes long to import

        document = load_pt(path, "a .pt file of tensors", "make it again")
    else:
        document = read_json(path, "make one with `qvla gates`")
    if not isinstance(document, dict):
        raise QvlaError(
            "gates_path", path, "an object {layer: [bits]}", "make one with `qvla gates`"
        )
    return document


def _from_schema(document: dict[str, Any], path: Path) -> Gates:
    if document["schema_version"] != SCHEMA_VERSION:
        raise QvlaError(
            f"{path}: schema_version",
            document["schema_version"],
            f"{SCHEMA_VERSION}",
            "make the gates with this version",
        )
    if "layers" not in document:
        raise QvlaError(f"{path}: layers", "absent", "{layer: [bits]}", _AGAIN)
    for key in ("budget", "sources", "scheme"):
        if not isinstance(document.get(key, {}), dict):
            raise QvlaError(f"{path}: {key}", type(document[key]).__name__, "an object", _AGAIN)
    scheme = document.get("scheme", {})
    # so that QuantizationScheme(**scheme) holds
    parse(QuantizationScheme, scheme, f"{path}: scheme", _AGAIN)
    return Gates(
        _checked(document["layers"], path),
        str(document.get("method", "unknown")),
        document.get("budget", {}),
        document.get("sources", {}),
        parse(tuple[str, ...], document.get("not_executed", []), f"{path}: not_executed", _AGAIN),
        scheme,
    )


def _checked(layers: Any, source: object) -> dict[str, np.ndarray]:
    """Returns {name: uint8 [R]}; QvlaError naming the layer unless it is a list of bit-widths."""
    if not isinstance(layers, Mapping) or not layers:
        raise QvlaError(
            f"gates in {source}",
            type(layers).__name__,
            "an object {layer: [bits]}",
            "check the file",
        )
    return {str(name): _checked_row(str(name), row) for name, row in layers.items()}


def _checked_row(name: str, row: Any) -> np.ndarray:
    try:
        values = np.asarray(row, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.empty((0, 0))
    if values.ndim != 1:
        raise QvlaError(
            f"gates[{name!r}]",
            type(row).__name__,
            "a flat list of bit-widths",
            "check the file's layout",
        )
    unknown = sorted(set(values[~np.isin(values, BIT_WIDTHS)].tolist()))
    if unknown:
        raise QvlaError(
            f"gates[{name!r}]",
            f"bit-widths {unknown[:5]}",
            f"only {list(BIT_WIDTHS)}",
            "drop those widths",
        )
    return values.astype(np.uint8)
