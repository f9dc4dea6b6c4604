"""Summarises a quantization for a report: where the bits went, and how sensitive the layers are.

All values are plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.gates import Gates, read_gates
from qvla_offline.sensitivity.store import Sensitivity

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def quantization_summary(
    sensitivity: Sensitivity,
    gates: Gates,
    bundle: Path | None,
    step_seconds: Mapping[str, float],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the summary as one JSON object.

    layers: one entry each, in model order: rows, columns, executed, bit_histogram {bits: channels}
    (of the bundle, where there is one, whose groups are filled up to the tile),
    sensitivity_quantiles {bits: values at QUANTILES}. agreement: first-order against measured
    scores, None when not checked. measured: the report of `qvla error`, empty if nothing was
    measured. step_s: wall time of each step.
    """
    final = read_gates(bundle / "gates.json") if bundle is not None else gates
    layers = []
    for name, score in sensitivity.scores.items():
        layers.append(
            {
                "name": name,
                "rows": int(score.shape[1]),
                "columns": sensitivity.columns.get(name),
                "executed": name not in sensitivity.not_executed,
                "bit_histogram": _histogram(final.layers[name]),
                "sensitivity_quantiles": {
                    str(bits): [float(v) for v in np.quantile(row, QUANTILES)]
                    for bits, row in zip(sensitivity.bits, score, strict=True)
                },
            }
        )
    executed = [final.layers[name] for name in sensitivity.executed()]
    return {
        "schema_version": 1,
        "method": gates.method,
        "sensitivity": {
            "method": sensitivity.method,
            "bits": list(sensitivity.bits),
            "settings": sensitivity.settings,
        },
        "agreement": sensitivity.settings.get("agreement"),
        "budget": gates.budget,
        "measured_error": dict(measured),
        "scheme": gates.scheme,
        "bit_histogram": _histogram(np.concatenate(executed)),
        "quantiles": list(QUANTILES),
        "sources": gates.sources,
        "step_s": dict(step_seconds),
        "layers": layers,
    }


def _histogram(bits: np.ndarray) -> dict[str, int]:
    return {str(b): int(count) for b, count in enumerate(np.bincount(bits)) if count}
