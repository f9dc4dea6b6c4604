"""Chooses gates from a sensitivity file and a budget, and notes what is needed to judge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qvla_offline.gates.costs import COSTS
from qvla_offline.gates.files import Gates, widths_in
from qvla_offline.gates.layerwise import layerwise, of_layer_widths, total_of
from qvla_offline.gates.optimal import Allocation, optimal
from qvla_offline.gates.options import Budget
from qvla_offline.gates.released import released_greedy
from qvla_offline.gates.scored import every_width, score_table, scored_widths
from qvla_offline.quantization.containers import can_be_stored, promote_to_tile
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError


def assign_gates(
    sensitivity: Sensitivity,
    budget: Budget,
    scheme: QuantizationScheme,
    sources: Mapping[str, str] | None = None,
) -> Gates:
    """Chooses gates for every layer of the sensitivity file, in its order.

    Layers that no sample reached keep 16 bits and stay out of the budget. (Method 'released' treats
    them like all others, as the released script does.)
    """
    if budget.method != "released" and not sensitivity.columns:
        raise QvlaError(
            "proxy_pt",
            "a released .pt, which does not say how long the rows are",
            "row lengths, to price them",
            "name the checkpoint with --pretrained_checkpoint",
        )
    method = {"optimal": _optimal, "layerwise": _layerwise, "released": _released}[budget.method]
    described = sensitivity.sources | dict(sources or {})
    return method(sensitivity, budget, scheme, described)


def _released(
    sensitivity: Sensitivity, budget: Budget, scheme: QuantizationScheme, sources: dict[str, str]
) -> Gates:
    proxies = {
        name: dict(zip(sensitivity.bits, score, strict=True))
        for name, score in sensitivity.scores.items()
    }
    layers = released_greedy(proxies, budget.bits, budget.target_avg_bits)
    spent = _released_budget(layers, sensitivity.columns, budget, scheme)
    method = f"{sensitivity.method}/released"
    return Gates(layers, method, spent, sources, (), scheme.described())


def _optimal(
    sensitivity: Sensitivity, budget: Budget, scheme: QuantizationScheme, sources: dict[str, str]
) -> Gates:
    allowed = scored_widths(sensitivity, budget)
    scores = score_table(sensitivity, every_width(allowed))
    columns = {name: sensitivity.columns[name] for name in scores}
    allocation = optimal_in_tiles(scores, columns, allowed, budget, scheme)
    layers = {
        name: allocation.layers.get(name, np.full(score.shape[1], 16, dtype=np.uint8))
        for name, score in sensitivity.scores.items()
    }
    spent = budget_spent(allocation.layers, columns, budget, scheme) | {
        "total_sensitivity": allocation.total,
        "lower_bound": allocation.bound,
        "optimality_gap": allocation.gap,
        "tile": tile_of(budget, every_width(allowed), scheme),
    }
    return Gates(
        layers,
        f"{sensitivity.method}/optimal",
        spent,
        sources,
        tuple(sensitivity.not_executed),
        scheme.described(),
    )


def _layerwise(
    sensitivity: Sensitivity, budget: Budget, scheme: QuantizationScheme, sources: dict[str, str]
) -> Gates:
    widths = layerwise(sensitivity, budget, scheme)
    layers = of_layer_widths(sensitivity, widths)
    columns = {name: sensitivity.columns[name] for name in widths}
    total = {"total_sensitivity": total_of(sensitivity, widths)}
    spent = budget_spent(layers, columns, budget, scheme) | total
    method = f"{sensitivity.method}/layerwise"
    idle = tuple(sensitivity.not_executed)
    return Gates(layers, method, spent, sources, idle, scheme.described())


def budget_spent(
    layers: Mapping[str, np.ndarray],
    columns: Mapping[str, int],
    budget: Budget,
    scheme: QuantizationScheme,
) -> dict[str, Any]:
    """What was asked, and what gates {layer: bits [R]} spend, for the gates file."""
    other = "stored" if budget.cost == "nominal" else "nominal"
    spent = {
        f"{cost}_bits_per_weight": budget.pricing(scheme, cost).bits_per_weight(layers, columns)
        for cost in (budget.cost, other)
        if cost == "nominal" or can_be_stored(widths_in(layers), scheme)
    }
    return {"asked_bits_per_weight": budget.target_avg_bits, **spent, "cost": budget.cost}


def tile_of(budget: Budget, widths: Sequence[int], scheme: QuantizationScheme) -> int:
    """The tile to which groups are filled; 1, none, where no container holds all the `widths`."""
    return budget.tile if can_be_stored(widths, scheme) else 1


def optimal_in_tiles(
    scores: Mapping[str, np.ndarray],
    columns: Mapping[str, int],
    allowed: Mapping[str, tuple[int, ...]],
    budget: Budget,
    scheme: QuantizationScheme,
) -> Allocation:
    """Chooses optimal gates whose groups of rows are filled up to the tile, within the budget.

    scores: {layer: [n, R]} in the order of `every_width(allowed)`.
    The budget given to `optimal` shrinks until the filled groups fit. If they never do (few rows,
    a large tile), the widest bit-width is given up: fewer groups need less filling.
    """
    pricing = budget.pricing(scheme)
    bits = every_width(allowed)
    first = optimal(scores, columns, bits, budget.target_avg_bits, pricing, allowed)
    if tile_of(budget, bits, scheme) == 1:
        return first
    position = {b: index for index, b in enumerate(bits)}
    cheapest = pricing.bits_per_weight(
        {n: np.full(s.shape[1], allowed[n][0]) for n, s in scores.items()}, columns
    )
    withheld = 0.0
    while budget.target_avg_bits - withheld >= cheapest:
        asked = budget.target_avg_bits - withheld
        allocation = optimal(scores, columns, bits, asked, pricing, allowed)
        layers = {
            n: fill_tiles(b, scores[n], position, budget.tile, scheme, allowed[n])
            for n, b in allocation.layers.items()
        }
        reached = pricing.bits_per_weight(layers, columns)
        if reached <= budget.target_avg_bits:
            total = sum(
                _chosen(scores[name], row_bits, position).sum() for name, row_bits in layers.items()
            )
            return Allocation(layers, budget.target_avg_bits, reached, float(total), first.bound)
        # grows, so this ends
        withheld = max(withheld + reached - budget.target_avg_bits, 1.25 * withheld, 1e-3)
    narrower = _without_widest(allowed)
    kept = [position[b] for b in every_width(narrower)]
    fewer = {name: score[kept] for name, score in scores.items()}
    found = optimal_in_tiles(fewer, columns, narrower, budget, scheme)
    return replace(found, bound=first.bound)


def _without_widest(allowed: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Takes the widest bit-width from the layers that may have another one."""
    widest = max(widths[-1] for widths in allowed.values() if len(widths) > 1)
    return {
        name: widths[:-1] if len(widths) > 1 and widths[-1] == widest else widths
        for name, widths in allowed.items()
    }


def fill_tiles(
    row_bits: np.ndarray,
    scores: np.ndarray,
    position: Mapping[int, int],
    tile: int,
    scheme: QuantizationScheme,
    allowed: Sequence[int],
) -> np.ndarray:
    """Fills the groups of export up to `tile` rows by promoting the rows that gain most.

    Returns uint8 [R].
    """
    promoted = promote_to_tile(row_bits, _chosen(scores, row_bits, position), tile, scheme)
    # a container's full width that the layer may not have is not used
    usable = np.isin(promoted, allowed)
    return np.where(usable, promoted, row_bits).astype(np.uint8)


def _chosen(scores: np.ndarray, row_bits: np.ndarray, position: Mapping[int, int]) -> np.ndarray:
    index = np.array([position[int(b)] for b in row_bits])
    return np.take_along_axis(scores, index[None], axis=0)[0]


def _released_budget(
    layers: Mapping[str, np.ndarray],
    columns: Mapping[str, int],
    budget: Budget,
    scheme: QuantizationScheme,
) -> dict[str, Any]:
    mean = float(np.concatenate(list(layers.values())).mean())
    spent = {"asked_bits_per_channel": budget.target_avg_bits, "reached_bits_per_channel": mean}
    if columns:
        spent |= {
            f"{cost}_bits_per_weight": budget.pricing(scheme, cost).bits_per_weight(layers, columns)
            for cost in COSTS
            if cost == "nominal" or can_be_stored(widths_in(layers), scheme)
        }
    return spent


def describe(gates: Gates) -> str:
    """Describes gates to a person, in a few lines."""
    counts = gates.histogram()
    channels = sum(counts.values())
    lines = [f"gates {gates.method}, {len(gates.layers)} layers, {channels} channels"]
    lines += [
        f"  {key}: {round(v, 6) if isinstance(v, float) else v}" for key, v in gates.budget.items()
    ]
    lines += ["  " + ", ".join(f"{b} bits: {count / channels:.1%}" for b, count in counts.items())]
    if gates.not_executed:
        lines += [
            "  never executed, left at 16 bits and out of the budget: "
            f"{len(gates.not_executed)} layers"
        ]
    return "\n".join(lines)
