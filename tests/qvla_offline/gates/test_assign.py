"""Groups that are filled up to the tile: within the budget, and near it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.gates import assign
from qvla_offline.gates.assign import assign_gates, describe
from qvla_offline.gates.costs import COSTS
from qvla_offline.gates.optimal import Allocation, optimal
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)
BITS = (0, 2, 4, 8)


def random_sensitivity(seed: int, rows: int, layers: int = 4) -> Sensitivity:
    """Scores that fall fourfold a bit, as squared errors do, over channels of unequal weight."""
    generator = np.random.default_rng(seed)
    falling = 4.0 ** -np.array(BITS)[:, None]
    scores = {
        f"layer{index}": (falling * generator.lognormal(0.0, 2.0, rows)).astype(np.float32)
        for index in range(layers)
    }
    return Sensitivity("action", BITS, scores, dict.fromkeys(scores, 128))


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(5.5, 12.0),
    st.sampled_from([2, 8, 16]),
    st.sampled_from(COSTS),
)
def test_filling_tiles_costs_little_of_the_budget_and_little_sensitivity(
    seed: int, target: float, tile: int, cost: str
) -> None:
    """The share withheld for filling is no larger than filling needs.

    Filling needs a tile a container and layer, of 128 rows.
    """
    sensitivity = random_sensitivity(seed, rows=128)
    budget = assign_gates(sensitivity, Budget(target, cost=cost, tile=tile), SCHEME).budget
    alone = assign_gates(sensitivity, Budget(target, cost=cost, tile=1), SCHEME).budget
    reached = budget[f"{cost}_bits_per_weight"]
    assert target - 16 * 2 * tile / 128 <= reached <= target
    # both are greedy in the last rows, so only the bound is below every allocation
    assert alone["lower_bound"] <= budget["total_sensitivity"] * (1 + 1e-6)
    assert budget["lower_bound"] == pytest.approx(alone["lower_bound"])


def test_what_filling_overspends_is_withheld_at_the_next_try_so_that_a_few_are_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each try is an allocation of the whole checkpoint. Small steps would need dozens."""
    tries = Counter()

    def counted(*arguments: Any) -> Allocation:
        tries[seed] += 1
        return optimal(*arguments)

    monkeypatch.setattr(assign, "optimal", counted)
    for seed in range(10):
        assign_gates(random_sensitivity(seed, rows=128), Budget(8.0, tile=8), SCHEME)
    assert tries.total() <= 10 * 6


def test_all_bits_of_the_budget_are_spent_where_rows_fill_their_tiles_anyway() -> None:
    """Half the rows want 8 bits and half 4 whatever the order: 8 of each, a whole tile."""
    scores = np.array([[16.0] * 8 + [1.0] * 8, [1.0] * 8 + [0.99] * 8], np.float32)
    sensitivity = Sensitivity("action", (4, 8), {"a": scores}, {"a": 128})
    price = (4 + 1 + 8 + 16 / 128) / 2  # codes, a 16-bit scale a group of 16 at 4 bits, one at 8
    gates = assign_gates(sensitivity, Budget(price, bits=(4, 8), cost="nominal", tile=8), SCHEME)
    assert gates.layers["a"].tolist() == [8] * 8 + [4] * 8
    assert gates.budget["nominal_bits_per_weight"] == pytest.approx(price)
    assert gates.budget["total_sensitivity"] == pytest.approx(8 * 1.0 + 8 * 1.0)


def test_where_no_filled_tile_fits_the_widest_bit_width_is_given_up() -> None:
    """One layer of 4 rows and tiles of 8: one row at 16 bits would take all rows with it."""
    sensitivity = random_sensitivity(0, rows=4, layers=1)
    gates = assign_gates(sensitivity, Budget(6.0, tile=8), SCHEME)
    assert set(gates.layers["layer0"].tolist()) <= {0, 2, 4}
    assert gates.budget["nominal_bits_per_weight"] <= 6.0
    assert gates.budget["lower_bound"] <= gates.budget["total_sensitivity"]


def test_a_container_that_bits_leaves_out_is_not_used_for_filling() -> None:
    """2-bit rows ride in the 4-bit container, but 4 bits were not allowed."""
    sensitivity = random_sensitivity(3, rows=16)
    gates = assign_gates(sensitivity, Budget(3.4, bits=(0, 2, 16), tile=8), SCHEME)
    assert set(gates.histogram()) <= {0, 2, 16}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"target_avg_bits": -0.001}, {"target_avg_bits": 0.0}),
        ({"target_avg_bits": 16.001}, {"target_avg_bits": 16.0}),
        ({"tile": 0}, {"tile": 1}),
        ({"bits": ()}, {"bits": (16,)}),
        ({"bits": (4, 5)}, {"bits": (4, 8)}),
    ],
)
def test_a_budget_may_lie_on_the_edge_of_its_range(wrong: dict, right: dict) -> None:
    Budget(**right)
    with pytest.raises(QvlaError):
        Budget(**wrong)


def test_row_lengths_are_asked_for_only_where_rows_are_priced() -> None:
    without = Sensitivity("imported", BITS, random_sensitivity(0, 8).scores)
    with pytest.raises(QvlaError, match="row lengths"):
        assign_gates(without, Budget(), SCHEME)
    assert assign_gates(without, Budget(method="released"), SCHEME).method == "imported/released"


def test_gates_are_described_in_shares_of_all_channels() -> None:
    scores = np.array([[4.0, 4.0, 4.0, 1e-9]], np.float32)
    sensitivity = Sensitivity(
        "action", (4,), {"a": scores, "idle": scores}, {"a": 16, "idle": 16}, ("idle",)
    )
    lines = describe(
        assign_gates(sensitivity, Budget(13.25, bits=(4, 16), cost="nominal", tile=1), SCHEME)
    )
    assert "gates action/optimal, 2 layers, 8 channels" in lines
    assert "4 bits: 12.5%, 16 bits: 87.5%" in lines
    assert "out of the budget: 1 layers" in lines
