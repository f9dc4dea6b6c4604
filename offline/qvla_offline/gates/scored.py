"""The scores and the bit-widths from which gates are chosen, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qvla_offline.gates.layer_rules import parse_rules, require_rules_within
from qvla_offline.gates.options import Budget
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError


def scored_widths(sensitivity: Sensitivity, budget: Budget) -> dict[str, tuple[int, ...]]:
    """Returns {executed layer: the bit-widths that it may have}; QvlaError if one has no scores."""
    require_rules_within(parse_rules(budget.layer_bits), sensitivity.bits)
    allowed = budget.widths(sensitivity.scores)
    return {name: allowed[name] for name in sensitivity.executed()}


def every_width(allowed: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The bit-widths that any layer may have, ascending."""
    return tuple(sorted({b for widths in allowed.values() for b in widths}))


def score_table(sensitivity: Sensitivity, bits: Sequence[int]) -> dict[str, np.ndarray]:
    """{executed layer: [len(bits), R]}: zero at 16 bits, else as in the file."""
    require_scored(bits, sensitivity.bits)
    position = {b: index for index, b in enumerate(sensitivity.bits)}
    return {
        name: np.stack(
            [np.zeros(score.shape[1]) if b == 16 else score[position[b]] for b in bits]
        ).astype(np.float64)
        for name, score in sensitivity.executed().items()
    }


def require_scored(bits: Sequence[int], scored: Sequence[int]) -> None:
    """Raises QvlaError unless every one of `bits` below 16 is among the `scored` ones."""
    missing = [b for b in bits if b != 16 and b not in scored]
    if missing:
        raise QvlaError(
            "bits",
            f"{missing}, which the sensitivity file does not score",
            f"16 or some of {list(scored)}",
            "drop them from --bits, or score them with `qvla sensitivity --bits ...`",
        )
