"""The report's curve is the true trade-off.

Gates chosen for a budget lie on it, uniform ones never below it.
"""

from __future__ import annotations

import numpy as np
import pytest

from qvla_offline.analysis import analyse, measured_errors
from qvla_offline.gates import Gates, Pricing, optimal
from qvla_offline.gates.scored import score_table
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.store import Sensitivity

BITS = (0, 2, 4, 8)
COLUMNS = {"first": 64, "second": 128}


@pytest.fixture
def sensitivity() -> Sensitivity:
    random = np.random.default_rng(0)
    rows = {"first": 40, "second": 24, "never_run": 8}
    scores = {
        name: np.exp(random.normal(size=count)) * np.array([100.0, 9.0, 1.0, 0.01])[:, None]
        for name, count in rows.items()
    }
    return Sensitivity(
        "action", BITS, scores, {**COLUMNS, "never_run": 64}, not_executed=("never_run",)
    )


def gates_at(sensitivity: Sensitivity, budget: float) -> Gates:
    bits = (*BITS, 16)
    allocation = optimal(
        score_table(sensitivity, bits),
        COLUMNS,
        bits,
        budget,
        Pricing(QuantizationScheme(), "stored"),
    )
    return Gates(
        {**allocation.layers, "never_run": np.full(8, 16, np.uint8)},
        "action/optimal",
        {"cost": "stored"},
    )


def test_the_chosen_gates_lie_on_the_curve_and_uniform_ones_above_it(
    sensitivity: Sensitivity,
) -> None:
    result = analyse(sensitivity, gates_at(sensitivity, 4.5))
    budgets, errors = np.array(result["best"]).T
    assert np.all(np.diff(budgets) >= 0)
    assert np.all(np.diff(errors) <= 0)
    below = errors[budgets <= result["chosen"][0]].min()
    above = errors[budgets >= result["chosen"][0]].max()
    assert above <= result["chosen"][1] <= below
    for bits_per_weight, error in result["uniform"].values():
        cheaper = errors[budgets <= bits_per_weight]
        # Between two points of the curve, or left of the first, nothing is claimed.
        assert not cheaper.size or error >= errors[budgets >= bits_per_weight].max(initial=0.0)


def test_layers_keep_the_model_s_order_and_sums_are_over_channels(sensitivity: Sensitivity) -> None:
    result = analyse(sensitivity, gates_at(sensitivity, 4.0))
    assert result["layers"] == ["first", "second", "never_run"]
    assert result["sensitivity"][4][1] == pytest.approx(sensitivity.scores["second"][2].sum())


def test_measured_errors_stand_at_the_bits_that_were_priced() -> None:
    error = {"mean": 0.2, "low": 0.1, "high": 0.4, "observations": 9}
    known = {"name": "a", "bits_per_weight": {"stored": 4.5, "nominal": 4.2}}
    report = {
        "results": [
            known | {"measured_error": error},
            {"name": "b", "bits_per_weight": {}, "measured_error": error},
        ]
    }
    found = measured_errors(report, "nominal")
    assert found["observations"] == 9
    assert found["measured"] == [
        {"name": "a", "bits_per_weight": 4.2, "error": 0.2, "low": 0.1, "high": 0.4}
    ]
    assert measured_errors({}, "stored") == {"measured": [], "observations": 0}
