"""Turns a sensitivity file and its gates into the report's numbers.

They are the sensitivity of each layer, the predicted error against the budget, and errors that were
measured.

    python -m qvla_offline.analysis --proxy_pt sensitivity.safetensors --gates_path gates.json
    --error_json error.json --out_json analysis.json

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

from qvla_offline.gates import Gates, Pricing, optimal, read_gates
from qvla_offline.gates.scored import score_table
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity
from qvla_ros.atomic import atomic_file
from qvla_ros.strict_json import read_json

BUDGETS = 24  # points of the curve, spread over the budgets that gates can have
UNITS = {"action": "squared normalised action", "hessian": "Hessian proxy"}


def analyse(sensitivity: Sensitivity, gates: Gates) -> dict[str, Any]:
    """The report's numbers; see the module.

    They are priced as the gates were: by their scheme and their kind of cost.
    """
    cost = gates.budget.get("cost", "nominal")
    compute_dtype = gates.budget.get("compute_dtype", "float32")
    pricing = Pricing(QuantizationScheme(**gates.scheme), cost, compute_dtype)
    bits = (*sensitivity.bits, 16)
    scores = score_table(sensitivity, bits)
    columns = {name: sensitivity.columns[name] for name in scores}

    def point(layers: Mapping[str, np.ndarray]) -> tuple[float, float]:
        rows = {name: np.searchsorted(bits, layers[name]) for name in scores}
        error = sum(
            float(score[rows[name], np.arange(score.shape[1])].sum())
            for name, score in scores.items()
        )
        return pricing.bits_per_weight(layers, columns), error

    everywhere = {
        b: point({name: np.full(s.shape[1], b, np.uint8) for name, s in scores.items()})
        for b in bits
    }
    budgets = np.linspace(everywhere[bits[0]][0], everywhere[bits[-2]][0], BUDGETS + 1)[1:]
    best = [optimal(scores, columns, bits, float(budget), pricing) for budget in budgets]
    return {
        "layers": list(sensitivity.scores),
        "sensitivity": {
            b: [float(s[i].sum()) for s in sensitivity.scores.values()]
            for i, b in enumerate(bits[:-1])
        },
        "best": [(allocation.reached_bits_per_weight, allocation.total) for allocation in best],
        "uniform": {b: everywhere[b] for b in sensitivity.bits if b > 0},
        "chosen": point(gates.layers),
        "cost": cost,
        "unit": UNITS.get(sensitivity.method, sensitivity.method),
    }


def measured_errors(report: Mapping[str, Any], cost: str) -> dict[str, Any]:
    """Returns what Analysis says of the measured errors in a report of `qvla error`.

    report: {} if nothing was measured. Subjects whose bits are not known are left out.
    """
    known = [one for one in report.get("results", ()) if cost in one["bits_per_weight"]]
    errors = [one["measured_error"] for one in known]
    return {
        "measured": [
            {
                "name": one["name"],
                "bits_per_weight": one["bits_per_weight"][cost],
                "error": error["mean"],
                "low": error["low"],
                "high": error["high"],
            }
            for one, error in zip(known, errors, strict=True)
        ],
        "observations": errors[0]["observations"] if errors else 0,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy_pt", type=Path, required=True, help="the sensitivity file")
    parser.add_argument("--gates_path", type=Path, required=True)
    parser.add_argument("--error_json", type=Path, help="a report of `qvla error` on these gates")
    parser.add_argument("--out_json", type=Path, required=True)
    args = parser.parse_args(argv)
    content = analyse(read_sensitivity(args.proxy_pt), read_gates(args.gates_path))
    if args.error_json is not None:
        content |= measured_errors(read_json(args.error_json, "measure again"), content["cost"])
    with atomic_file(args.out_json) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
