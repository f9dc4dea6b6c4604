"""Adds to a released .pt what it leaves out, from the checkpoint that it scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.sensitivity.hessian import columns
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError


def completed(sensitivity: Sensitivity, checkpoint_path: str | Path) -> Sensitivity:
    """Returns `sensitivity` with the row lengths and the layers that never run.

    Only config.json is read.
    Raises QvlaError naming the layer when the scores are those of another checkpoint.
    """
    model = empty_policy(checkpoint_path)
    targets = quantization_targets(model)
    for name, score in sensitivity.scores.items():
        rows = targets[name].weight.shape[0] if name in targets else "no such layer"
        if score.shape[1] != rows:
            fix = "name the checkpoint that was scored with --pretrained_checkpoint"
            raise QvlaError(
                f"proxy_pt: {name}",
                f"{score.shape[1]} channels",
                f"{rows}, as {checkpoint_path} has",
                fix,
            )
    widths = {name: columns(targets[name]) for name in sensitivity.scores}
    idle = unexecuted_targets(model)
    return replace(
        sensitivity, columns=widths, not_executed=tuple(name for name in widths if name in idle)
    )
