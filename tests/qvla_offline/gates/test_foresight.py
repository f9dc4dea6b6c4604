"""What choosing gates would refuse is refused before the scores are computed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.model import VisionLanguageModel
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.gates.costs import COSTS
from qvla_offline.gates.foresight import require_affordable
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

SCHEME = QuantizationScheme(16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return empty_policy(write_random_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.mark.parametrize("cost", COSTS)
def test_a_budget_is_affordable_from_the_cheapest_gates_of_the_layers_that_run_on(
    model: VisionLanguageModel, cost: str
) -> None:
    idle = unexecuted_targets(model)
    shapes = [
        (module.weight.shape[0], module.weight[0].numel())
        for name, module in quantization_targets(model).items()
        if name not in idle
    ]
    assert idle
    pricing = Budget(cost=cost).pricing(SCHEME)
    weights = sum(rows * columns for rows, columns in shapes)
    cheapest = sum(rows * pricing.row_bits(columns, 4) for rows, columns in shapes) / weights
    enough = Budget(cheapest, bits=(8, 4), cost=cost)
    require_affordable(model, enough, SCHEME, "action", (2, 4, 8), 1)
    too_little = replace(enough, target_avg_bits=cheapest - 1e-3)
    with pytest.raises(QvlaError, match="^target_avg_bits: .* at least"):
        require_affordable(model, too_little, SCHEME, "action", (2, 4, 8), 1)


@pytest.mark.parametrize(
    ("budget", "rounds", "method", "key"),
    [
        (Budget(8.0, bits=(4, 8, 16)), 0, "hessian", None),
        (Budget(8.0, bits=(2, 8)), 0, "hessian", "bits"),  # 2 bits are not scored
        (Budget(8.0, bits=(4, 8)), 1, "hessian", "joint_rounds"),
        (Budget(0.0, method="released"), 0, "hessian", None),  # it takes what it can reach
    ],
)
def test_what_is_refused_is_what_the_later_step_refuses(
    model: VisionLanguageModel, budget: Budget, rounds: int, method: str, key: str | None
) -> None:
    with pytest.raises(QvlaError, match=f"^{key}: ") if key else nullcontext():
        require_affordable(model, budget, SCHEME, method, (4, 8), rounds)
