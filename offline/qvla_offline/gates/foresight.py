"""Checks a budget against the checkpoint's shapes, before the hours of scoring."""

from __future__ import annotations

from qvla_offline.checkpoints.model import VisionLanguageModel
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.gates.joint import require_joint
from qvla_offline.gates.layer_rules import parse_rules, require_rules_within
from qvla_offline.gates.optimal import spendable_bits
from qvla_offline.gates.options import Budget
from qvla_offline.gates.scored import every_width, require_scored
from qvla_offline.quantization.scheme import QuantizationScheme


def require_affordable(
    model: VisionLanguageModel,
    budget: Budget,
    scheme: QuantizationScheme,
    method: str,
    scored_bits: tuple[int, ...],
    joint_rounds: int,
) -> None:
    """Raises the QvlaError with which assign_gates or assign_jointly would refuse `budget`.

    method, scored_bits: of the scores. model: of the checkpoint; it may be empty. The message is
    that of the later step.
    """
    require_joint(joint_rounds, method, budget)
    if budget.method == "released":
        return
    require_rules_within(parse_rules(budget.layer_bits), scored_bits)
    idle = unexecuted_targets(model)
    widths = budget.widths(quantization_targets(model))
    allowed = {name: of_layer for name, of_layer in widths.items() if name not in idle}
    require_scored(every_width(allowed), scored_bits)
    shapes = {
        name: module.weight.shape
        for name, module in quantization_targets(model).items()
        if name not in idle
    }
    rows = {name: shape[0] for name, shape in shapes.items()}
    columns = {name: shape[1:].numel() for name, shape in shapes.items()}
    spendable_bits(rows, columns, allowed, budget.target_avg_bits, budget.pricing(scheme))
