"""Keeps the best of several allocations of one budget, by the measured error of the actions.

The rivals of bits by channel are one width everywhere and one width a layer. So the result is never
worse than these on what was measured, whatever the scores are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from qvla_offline.gates.assign import budget_spent
from qvla_offline.gates.files import Gates
from qvla_offline.gates.layer_rules import nearest_allowed
from qvla_offline.gates.layerwise import layerwise, of_layer_widths, total_of, widths_of_layers
from qvla_offline.gates.options import Budget
from qvla_offline.gates.scored import every_width
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

BY_CHANNEL = "by channel"
BY_LAYER = "by layer"
MeasureWhole = Callable[[Mapping[str, np.ndarray]], float]


def keep_best(
    own: Gates,
    sensitivity: Sensitivity,
    budget: Budget,
    scheme: QuantizationScheme,
    measure: MeasureWhole,
    observations: int,
) -> Gates:
    """Returns the best of `own`, one width everywhere and one width a layer, within the budget.

    measure: {module: bits [R]} -> error of the actions, on `observations` that no score has read.
    The budget of the result holds all errors under `compared`. Of equal ones the first is kept.
    """
    candidates = {BY_CHANNEL: own} | rivals(own, sensitivity, budget, scheme)
    executed = list(sensitivity.executed())
    errors = {
        name: measure({layer: gates.layers[layer] for layer in executed})
        for name, gates in candidates.items()
    }
    best = min(errors, key=lambda name: errors[name])
    print(f"error of the actions, measured on {observations} samples that no score has read:")
    for name, error in errors.items():
        bits = candidates[name].budget[f"{budget.cost}_bits_per_weight"]
        times = "kept" if name == best else f"{error / max(errors[best], 1e-30):.2f} times the kept"
        print(f"  {name:<20} {bits:6.3f} bits {error:.3e}  {times}")
    compared = {"observations": observations, "kept": best, "errors": errors}
    gates = candidates[best]
    return replace(gates, budget=gates.budget | {"compared": compared})


def rivals(
    own: Gates, sensitivity: Sensitivity, budget: Budget, scheme: QuantizationScheme
) -> dict[str, Gates]:
    """Makes the widest single width within the budget, and the best allocation of whole layers.

    Layers keep to the rules of `layer_bits`: the single width is the nearest that each may have.
    Whole layers are not dropped unless a rule drops them. Empty where the budget buys no width
    above 0 bits everywhere.
    """
    pricing = budget.pricing(scheme)
    columns = {name: sensitivity.columns[name] for name in sensitivity.executed()}
    rows = {name: sensitivity.scores[name].shape[1] for name in columns}
    allowed = widths_of_layers(sensitivity, budget)
    everywhere = {b: nearest_allowed(allowed, b) for b in every_width(allowed)}
    limit = budget.target_avg_bits * sum(rows[name] * columns[name] for name in columns)
    affordable = [
        b
        for b, widths in everywhere.items()
        if sum(rows[name] * pricing.row_bits(columns[name], widths[name]) for name in columns)
        <= limit
    ]
    if not affordable:
        return {}
    widest = max(affordable)
    chosen = {
        f"{widest} bits everywhere": everywhere[widest],
        BY_LAYER: layerwise(sensitivity, budget, scheme),
    }
    found = {}
    for name, widths in chosen.items():
        layers = of_layer_widths(sensitivity, widths)
        total = {"total_sensitivity": total_of(sensitivity, widths)}
        spent = budget_spent(layers, columns, budget, scheme) | total
        method = "uniform" if name != BY_LAYER else f"{sensitivity.method}/layerwise"
        found[name] = replace(own, layers=layers, method=method, budget=spent)
    return found


def without_idle_widths(
    budget: Budget, columns: Mapping[str, int], scheme: QuantizationScheme
) -> Budget:
    """Returns the budget without widths that cost as much as a wider one, in every layer.

    Such are 2 bits in an INT4 container at stored cost.
    """
    prices = np.stack(list(budget.pricing(scheme).choices(columns, _ascending(budget)).values()))
    kept = [
        b
        for index, b in enumerate(_ascending(budget))
        if not any(
            (prices[:, wider] <= prices[:, index]).all()
            for wider in range(index + 1, len(prices[0]))
        )
    ]
    return replace(budget, bits=tuple(kept))


def require_measurable(observations: int, budget: Budget) -> None:
    """Raises QvlaError unless the allocations of `budget` can be measured on so many samples."""
    if observations < 0:
        raise QvlaError(
            "measured_samples", observations, "a number from 0 on", "set it to 0, or to 32 or more"
        )
    if observations and budget.method != "optimal":
        raise QvlaError(
            "measured_samples",
            f"{observations} with method {budget.method}",
            "method optimal, whose budget the rivals share",
            "set measured_samples to 0, or method to optimal",
        )


def _ascending(budget: Budget) -> tuple[int, ...]:
    return tuple(sorted(set(budget.bits)))
