"""Gives a trained policy other normalisation statistics; its behaviour in physical units stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_reference.architecture import output_layer
from qvla_ros.preprocess import RANGE_EPSILON

Statistics = Mapping[str, Mapping[str, Any]]


@torch.no_grad()
def renormalize(model: OpenVLAOFT, old: Statistics, new: Statistics) -> None:
    """Folds the change from `old` to `new` statistics into two layers.

    They are the first proprioception layer and the last action layer.

    With x = scale n + offset for both, n_new = (scale_old n_old + offset_old - offset_new) /
    scale_new. Exact, except for proprioception that one of the two statistics clips, and for
    actions in floating point.
    """
    last = output_layer(model)
    first = model.proprio_projector.fc1
    scale, offset = (part.to(last.weight) for part in _change(old["action"], new["action"]))
    last.weight.mul_(scale[:, None])
    last.bias.mul_(scale).add_(offset)
    # The other way round: this layer reads the new numbers and is to do with them what it did with
    # the old ones.
    scale, offset = (part.to(first.weight) for part in _change(new["proprio"], old["proprio"]))
    first.bias.add_(first.weight @ offset)
    first.weight.mul_(scale)


def _change(
    source: Mapping[str, Any], target: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (scale, offset), float32 [D]: target = scale * source + offset.

    It is the identity where the statistics are not masked.
    """
    low, high = (np.array(source[name]) for name in ("q01", "q99"))
    new_low, new_high = (np.array(target[name]) for name in ("q01", "q99"))
    half = (high - low + RANGE_EPSILON) / 2.0
    new_half = (new_high - new_low + RANGE_EPSILON) / 2.0
    mask = np.array(source.get("mask", True)) & np.ones(len(low), bool)
    scale = np.where(mask, half / new_half, 1.0)
    offset = np.where(mask, (low + half - new_low - new_half) / new_half, 0.0)
    return torch.tensor(scale, dtype=torch.float32), torch.tensor(offset, dtype=torch.float32)
