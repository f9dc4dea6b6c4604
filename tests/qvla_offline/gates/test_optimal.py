"""The best allocation at the edges of a budget, and what it says of itself."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_offline.gates.costs import Pricing
from qvla_offline.gates.optimal import Allocation, allocate, optimal, spendable_bits
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

NOMINAL = Pricing(QuantizationScheme(16))
BITS = (0, 2, 4, 8, 16)


def test_a_budget_of_exactly_the_cheapest_gates_buys_them_and_less_is_refused() -> None:
    """4 bits of 32 weights in groups of 16 cost 4 + 2 * 16 / 32 = 5 bits per weight."""
    scores = {"a": np.array([[3.0, 2.0], [1.0, 1.0]])}
    found = optimal(scores, {"a": 32}, (4, 16), 5.0, NOMINAL)
    assert found.layers["a"].tolist() == [4, 4]
    assert found.reached_bits_per_weight == 5.0
    with pytest.raises(QvlaError, match=r"^target_avg_bits: got 4.9; expected at least 5.0000 "):
        optimal(scores, {"a": 32}, (4, 16), 4.9, NOMINAL)


def test_a_budget_is_counted_in_whole_bits_over_all_layers() -> None:
    """A third of a bit per weight over 30 and 60 weights is 30 bits, though no float holds 1/3."""
    rows = {"a": 3, "b": 2}
    columns = {"a": 10, "b": 30}
    allowed = dict.fromkeys("ab", BITS)
    assert spendable_bits(rows, columns, allowed, 1 / 3, NOMINAL) == 30
    assert spendable_bits(rows, columns, allowed, 1.51 / 3, NOMINAL) == 45


@pytest.mark.parametrize(("layer", "row"), [("a", 0), ("a", 2), ("b", 0), ("b", 1), ("c", 3)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_layer_of_a_broken_score_is_named(layer: str, row: int, value: float) -> None:
    scores = {n: np.ones((5, rows)) for n, rows in (("a", 3), ("b", 2), ("c", 4))}
    scores[layer][2, row] = value
    with pytest.raises(QvlaError, match=f"NaN or infinity in {layer};"):
        optimal(scores, dict.fromkeys("abc", 16), BITS, 8.0, NOMINAL)


def test_the_gap_is_the_share_of_the_total_above_the_bound() -> None:
    def gap(total: float, bound: float) -> float:
        return Allocation({}, 4.0, 4.0, total, bound).gap

    assert gap(4.0, 3.0) == 0.25
    assert gap(0.5, 0.25) == 0.5
    assert gap(0.0, 0.0) == 0.0


def test_bits_that_the_best_step_cannot_use_go_to_the_next_best_that_fits() -> None:
    """Row 0 gains most for each bit and costs 10.

    Then come row 2 for 1 bit, row 1 for 3, row 3 for 1.
    """
    scores = np.array([[100.0, 0.0], [6.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    prices = np.array([[0, 10], [0, 3], [0, 1], [0, 1]])
    assert allocate(scores, prices, 3)[0].tolist() == [0, 0, 1, 1]
    assert allocate(scores, prices, 4)[0].tolist() == [0, 1, 1, 0]
    choice, total, bound = allocate(scores, prices, 13)
    assert choice.tolist() == [1, 0, 1, 1]
    assert total == 6.0
    # The relaxation spends the 13 - 11 bits that are left on two thirds of row 1.
    assert bound == pytest.approx(111.0 - 103.0 - 6.0 * 2 / 3)


def test_the_bound_at_a_budget_that_a_step_just_meets_is_the_total() -> None:
    scores = np.array([[8.0, 2.0, 0.0], [4.0, 1.0, 0.0]])
    prices = np.array([[0, 2, 4], [0, 2, 4]])
    for budget, best in ((0, 12.0), (2, 6.0), (4, 3.0), (6, 1.0), (8, 0.0), (9, 0.0)):
        _, total, bound = allocate(scores, prices, budget)
        assert (total, bound) == (best, best)


def test_what_saves_nothing_is_not_bought() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [2.0, 3.0, 2.0]])
    prices = np.array([[0, 1, 2], [0, 1, 2]])
    assert allocate(scores, prices, 100)[0].tolist() == [2, 0]
