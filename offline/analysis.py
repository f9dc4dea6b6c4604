"""What a sensitivity file and its gates say, as numbers for the report: per layer, and error against budget.

    python -m qvla_offline.analysis --proxy_pt sensitivity.safetensors --gates_path gates.json --out_json analysis.json

Read by qvla_ros.evaluation.analysis, which documents the fields.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qvla_offline.gates import Gates, bits_per_weight, optimal, read_gates
from qvla_offline.quantizers import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity

from qvla_ros.atomic import atomic_file

BUDGETS = 24  # points of the curve, spread over the budgets that gates can have
UNITS = {"action": "squared normalised action", "hessian": "Hessian proxy"}


def analyse(sensitivity: Sensitivity, gates: Gates) -> dict[str, Any]:
    """The report's numbers; see the module. 16 bits cost no error: sensitivity has no row for it."""
    scheme = QuantizationScheme(**gates.scheme)
    scores = {name: np.concatenate([score, np.zeros_like(score[:1])]) for name, score in sensitivity.executed().items()}
    bits = (*sensitivity.bits, 16)
    columns = {name: sensitivity.columns[name] for name in scores}

    def point(layers: Mapping[str, np.ndarray]) -> tuple[float, float]:
        error = sum(float(s[np.searchsorted(bits, layers[n]), np.arange(s.shape[1])].sum()) for n, s in scores.items())
        return bits_per_weight(layers, columns, scheme), error

    def everywhere(width: int) -> dict[str, np.ndarray]:
        return {name: np.full(score.shape[1], width, np.uint8) for name, score in scores.items()}

    uniform = {width: point(everywhere(width)) for width in sensitivity.bits if width > 0}
    lowest = point(everywhere(bits[0]))[0]
    budgets = np.linspace(lowest, point(everywhere(8 if 8 in bits else 16))[0], BUDGETS + 1)[1:]
    best = [optimal(scores, columns, bits, float(budget), scheme) for budget in budgets]
    return {
        "layers": list(scores),
        "sensitivity": {width: [float(s[i].sum()) for s in scores.values()] for i, width in enumerate(bits[:-1])},
        "best": [(allocation.reached_bits_per_weight, allocation.total) for allocation in best],
        "uniform": uniform,
        "chosen": point(gates.layers),
        "unit": UNITS.get(sensitivity.method, sensitivity.method),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy_pt", type=Path, required=True, help="the sensitivity file")
    parser.add_argument("--gates_path", type=Path, required=True)
    parser.add_argument("--out_json", type=Path, required=True)
    args = parser.parse_args(argv)
    content = analyse(read_sensitivity(args.proxy_pt), read_gates(args.gates_path))
    with atomic_file(args.out_json) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
