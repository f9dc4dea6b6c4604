"""Chooses one bit-width a layer within a budget: the layer-wise mixed precision of other work."""

from __future__ import annotations

import numpy as np

from qvla_offline.gates.optimal import allocate, spendable_bits
from qvla_offline.gates.options import Budget
from qvla_offline.gates.scored import every_width, score_table, scored_widths
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity


def layerwise(
    sensitivity: Sensitivity, budget: Budget, scheme: QuantizationScheme
) -> dict[str, int]:
    """Returns {executed layer: bits} of least summed score within the budget.

    Whole layers are not dropped unless a rule drops them. QvlaError if the budget does not reach.
    """
    allowed = widths_of_layers(sensitivity, budget)
    bits = every_width(allowed)
    pricing = budget.pricing(scheme)
    columns = {name: sensitivity.columns[name] for name in allowed}
    scores = score_table(sensitivity, bits)
    rows = {name: scores[name].shape[1] for name in allowed}
    summed = np.stack(
        [np.where(np.isin(bits, allowed[n]), scores[n].sum(axis=1), np.inf) for n in allowed]
    )
    prices = pricing.choices(columns, bits)
    by_width = np.stack([rows[name] * prices[name] for name in allowed])  # [layers, widths]
    spendable = spendable_bits(rows, columns, allowed, budget.target_avg_bits, pricing)
    choice, _, _ = allocate(summed, by_width, spendable)
    return {name: bits[index] for name, index in zip(allowed, choice, strict=True)}


def widths_of_layers(sensitivity: Sensitivity, budget: Budget) -> dict[str, tuple[int, ...]]:
    """Returns {executed layer: the bit-widths that it may have as a whole}: 0 only by a rule."""
    return {
        name: tuple(b for b in widths if b) or widths
        for name, widths in scored_widths(sensitivity, budget).items()
    }


def of_layer_widths(sensitivity: Sensitivity, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """Returns gates {layer: uint8 [R]} of one width a layer; layers that never run have 16 bits."""
    return {
        name: np.full(score.shape[1], widths.get(name, 16), dtype=np.uint8)
        for name, score in sensitivity.scores.items()
    }


def total_of(sensitivity: Sensitivity, widths: dict[str, int]) -> float:
    """Sums the scores of the layers {name: bits}."""
    scores = score_table(sensitivity, tuple(sorted(set(widths.values()))))
    places = {b: index for index, b in enumerate(sorted(set(widths.values())))}
    return sum(float(scores[name][places[b]].sum()) for name, b in widths.items())
