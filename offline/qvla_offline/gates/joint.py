"""Chooses gates by how errors really add up.

Each round allocates bits, measures the rows of each bit-width together, and reprices the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.files import Gates
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

Measure = Callable[[Mapping[str, np.ndarray]], tuple[dict[int, float], float]]
_LEAST = 0.25  # of a factor: one measurement of few rows must not make a bit-width free


def assign_jointly(
    sensitivity: Sensitivity,
    budget: Budget,
    scheme: QuantizationScheme,
    measure: Measure,
    rounds: int,
    sources: Mapping[str, str] | None = None,
) -> Gates:
    """Returns the best of `rounds` + 1 optimal allocations, by the measured error of the actions.

    measure: {module: bits [R]} -> ({bits: error of its rows together}, error of all rows), in the
    units of the scores. After each round the scores of a bit-width are multiplied by measured /
    summed (the first time wholly, then by geometric halves, so that it settles). The budget of the
    result holds `joint_factors` and `measured_error`, and its total and bound are in repriced
    units.
    """
    require_joint(rounds, sensitivity.method, budget)
    factors = dict.fromkeys(sensitivity.bits, 1.0)
    best: Gates | None = None
    for number in range(rounds + 1):
        gates = assign_gates(repriced(sensitivity, factors), budget, scheme, sources)
        by_bits, whole = measure({name: gates.layers[name] for name in sensitivity.executed()})
        print(
            f"joint round {number}: measured {whole:.3e}, priced "
            f"{gates.budget['total_sensitivity']:.3e}"
        )
        measured = {
            "joint_factors": {str(b): f for b, f in factors.items()},
            "measured_error": whole,
        }
        if best is None or whole < best.budget["measured_error"]:
            best = replace(gates, method=f"{gates.method}/joint", budget=gates.budget | measured)
        for bits, error in by_bits.items():
            summed = _summed(sensitivity, gates, bits)
            if summed > 0:
                ratio = max(error / summed, _LEAST)  # dropped rows cost thousands of times as much
                factors[bits] = ratio if number == 0 else (factors[bits] * ratio) ** 0.5
    assert best is not None
    return best


def require_joint(rounds: int, method: str, budget: Budget) -> None:
    """Raises QvlaError unless so many rounds can be measured with scores of `method`."""
    require_rounds(rounds)
    if rounds and (budget.method != "optimal" or method != "action"):
        raise QvlaError(
            "joint_rounds",
            f"{rounds} with {method}/{budget.method}",
            "an action sensitivity and the optimal method, whose scores are in the units "
            "that are measured",
            "set joint_rounds to 0",
        )


def require_rounds(rounds: int) -> None:
    """Raises QvlaError for a negative number."""
    if rounds < 0:
        raise QvlaError(
            "joint_rounds", rounds, "a number from 0 on", "set joint_rounds to 0, or to 1 or more"
        )


def repriced(sensitivity: Sensitivity, factors: Mapping[int, float]) -> Sensitivity:
    """Returns the scores of every bit-width times its factor."""
    column = np.array([factors[b] for b in sensitivity.bits], dtype=np.float32)[:, None]
    return replace(
        sensitivity, scores={name: score * column for name, score in sensitivity.scores.items()}
    )


def _summed(sensitivity: Sensitivity, gates: Gates, bits: int) -> float:
    index = sensitivity.bits.index(bits)
    return float(
        sum(
            score[index][gates.layers[name] == bits].sum()
            for name, score in sensitivity.executed().items()
        )
    )
