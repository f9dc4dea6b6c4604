"""How measured errors become prices: the direction, the mean over rounds, and the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import pytest

from qvla_offline.gates.files import Gates
from qvla_offline.gates.joint import assign_jointly, repriced, require_joint
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError

BITS = (2, 4, 8)
# So unequal that at any price some rows take each bit-width.
SCORES = np.outer([1.0, 0.1, 1e-3], 10.0 ** np.linspace(-6, 6, 64)).astype(np.float32)
SENSITIVITY = Sensitivity(
    "action", BITS, {"a": SCORES, "idle": SCORES}, {"a": 64, "idle": 64}, ("idle",)
)
BUDGET = Budget(7.0, bits=(2, 4, 8, 16), cost="nominal", tile=1)


def priced_after(measured: Sequence[Mapping[int, float]], wholes: Sequence[float]) -> Gates:
    """Gates after rounds in which the rows of a width cost a multiple of their summed scores."""
    rounds = iter(zip(measured, wholes, strict=True))

    def measure(layers: Mapping[str, np.ndarray]) -> tuple[dict[int, float], float]:
        times, whole = next(rounds)
        bits = layers["a"]
        assert set(layers) == {"a"}  # what never runs cannot be measured
        sums = {b: float(SCORES[i][bits == b].sum()) for i, b in enumerate(BITS)}
        return {b: factor * sums[b] for b, factor in times.items()}, whole

    return assign_jointly(
        SENSITIVITY, BUDGET, QuantizationScheme(16), measure, rounds=len(wholes) - 1
    )


def test_rows_that_cost_more_together_are_priced_higher_by_as_much() -> None:
    factors = priced_after([{2: 3.0, 4: 0.5}, {}], [2.0, 1.0]).budget["joint_factors"]
    assert factors == pytest.approx({"2": 3.0, "4": 0.5, "8": 1.0})


def test_later_rounds_move_a_price_to_the_geometric_mean_of_itself_and_what_was_measured() -> None:
    factors = priced_after([{2: 4.0}, {2: 9.0}, {}], [3.0, 2.0, 1.0]).budget["joint_factors"]
    assert factors["2"] == pytest.approx(6.0)  # between 4 and 9, whichever way they came
    factors = priced_after([{2: 2.0}, {2: 2.0}, {2: 2.0}, {}], [4.0, 3.0, 2.0, 1.0])
    assert factors.budget["joint_factors"]["2"] == pytest.approx(2.0)  # settled


def test_one_measurement_lowers_a_price_to_a_quarter_at_most_and_raises_it_without_limit() -> None:
    factors = priced_after([{2: 1e6, 4: 1e-6}, {}], [2.0, 1.0]).budget["joint_factors"]
    assert factors == pytest.approx({"2": 1e6, "4": 0.25, "8": 1.0})


def test_rows_whose_scores_are_zero_or_that_are_absent_keep_their_price() -> None:
    """A ratio to nothing is no measurement."""
    nothing = Sensitivity("action", BITS, {"a": np.zeros_like(SCORES)}, {"a": 64})
    errors = iter([2.0, 1.0])

    def measure(layers: Mapping[str, np.ndarray]) -> tuple[dict[int, float], float]:
        return {2: 1.0, 4: 0.0, 8: 1.0}, next(errors)

    found = assign_jointly(nothing, BUDGET, QuantizationScheme(16), measure, 1)
    assert found.budget["joint_factors"] == {"2": 1.0, "4": 1.0, "8": 1.0}


def test_the_first_allocation_is_at_the_scores_own_prices_and_the_best_round_is_reported() -> None:
    best = priced_after([{2: 3.0}, {2: 3.0}], [1.0, 2.0])
    assert best.budget["joint_factors"] == {"2": 1.0, "4": 1.0, "8": 1.0}
    assert best.budget["measured_error"] == 1.0


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_it_is_measured_once_more_often_than_repriced(rounds: int) -> None:
    calls = []

    def measure(layers: Mapping[str, np.ndarray]) -> tuple[dict[int, float], float]:
        calls.append(layers)
        return {}, 1.0

    assign_jointly(SENSITIVITY, BUDGET, QuantizationScheme(16), measure, rounds)
    assert len(calls) == rounds + 1


def test_a_factor_multiplies_all_scores_of_its_bit_width() -> None:
    found = repriced(SENSITIVITY, {2: 2.0, 4: 0.5, 8: 1.0})
    for name in ("a", "idle"):
        expected = [2.0 * SCORES[0], 0.5 * SCORES[1], SCORES[2]]
        np.testing.assert_allclose(found.scores[name], expected)


@pytest.mark.parametrize(
    ("rounds", "method", "budget", "allowed"),
    [
        (0, "hessian", Budget(method="released"), True),  # nothing is measured
        (1, "action", Budget(), True),
        (1, "hessian", Budget(), False),
        (1, "action", Budget(method="released"), False),
        (-1, "action", Budget(), False),
    ],
)
def test_rounds_need_action_scores_and_the_optimal_method(
    rounds: int, method: str, budget: Budget, allowed: bool
) -> None:
    with nullcontext() if allowed else pytest.raises(QvlaError, match="^joint_rounds"):
        require_joint(rounds, method, budget)
