"""One bit-width a layer within a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.layerwise import layerwise
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = (0, 2, 4, 8)
COLUMNS = {"a": 32, "b": 64, "c": 96, "idle": 16}


def sensitivity(seed: int) -> Sensitivity:
    generator = np.random.default_rng(seed)
    falling = 4.0 ** -np.array(BITS)[:, None]
    scores = {n: (falling * generator.lognormal(0, 2, 8)).astype(np.float32) for n in COLUMNS}
    return Sensitivity("action", BITS, scores, COLUMNS, ("idle",))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(5.0, 16.0))
def test_one_width_a_layer_is_within_the_budget_and_near_the_best_of_all(seed, target):
    budget = Budget(target, method="layerwise", cost="nominal")
    scored = sensitivity(seed)
    gates = assign_gates(scored, budget, SCHEME)
    assert all(len(set(bits.tolist())) == 1 for bits in gates.layers.values())
    assert set(gates.layers["idle"].tolist()) == {16}
    assert gates.budget["nominal_bits_per_weight"] <= target
    pricing = budget.pricing(SCHEME)
    best = min(
        sum(
            float(scored.scores[n][BITS.index(b)].sum())
            for n, b in zip("abc", w, strict=True)
            if b < 16
        )
        for w in itertools.product((2, 4, 8, 16), repeat=3)
        if pricing.bits_per_weight(
            {n: np.full(8, b, np.uint8) for n, b in zip("abc", w, strict=True)},
            {n: COLUMNS[n] for n in "abc"},
        )
        <= target
    )
    largest = max(float(scored.scores[n][1].sum()) for n in "abc")  # one layer may be wrong
    assert best * (1 - 1e-6) <= gates.budget["total_sensitivity"] <= best + largest * (1 + 1e-6)


def test_layers_are_dropped_by_a_rule_alone_and_keep_to_rules():
    budget = Budget(9.0, method="layerwise", layer_bits="a=0,b>=8", cost="nominal")
    widths = layerwise(sensitivity(1), budget, SCHEME)
    assert widths["a"] == 0
    assert widths["b"] >= 8
    assert widths["c"] > 0


def test_a_budget_that_no_width_a_layer_meets_is_refused():
    with pytest.raises(QvlaError, match=r"^target_avg_bits: got 1\.0; expected at least 3\.0"):
        assign_gates(sensitivity(0), Budget(1.0, method="layerwise", cost="nominal"), SCHEME)
