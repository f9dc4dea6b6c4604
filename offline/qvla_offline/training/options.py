"""The options of a recipe's section `training`, and of `qvla train_scales`. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from qvla_offline.option_fields import option
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class TrainingOptions:
    """How to train scales and biases.

    The learning rates are those of AdamW; they rise over the first steps and fall to 0 by a cosine.
    """

    max_samples: int = option(256, "observations to use, those for validation included")
    validation_share: float = option(
        0.2, "share of the observations, the last ones, that choose the best step and train nothing"
    )
    steps: int = option(100, "steps of training")
    batch: int = option(8, "observations a step")
    learning_rate: float = option(0.001, "of the logarithms of the scales")
    bias_learning_rate: float = option(0.001, "of the biases, in units of the layer's output")
    block_weight: float = option(
        100.0,
        "weight of the outputs of the network's blocks, as a share of their power, beside the "
        "actions",
    )
    seed: int = option(0, "seed of the order of the observations")
    by_block: bool = option(
        False,
        "train each block against its own float output, one block in memory at a time: for "
        "policies that do not fit as a whole",
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            least = 0 if entry.name == "seed" else 1
            if isinstance(entry.default, bool):
                continue
            if isinstance(entry.default, int):
                usable = value >= least
                expected = f"a number from {least} on"
            elif entry.name == "block_weight":
                usable = 0 <= value < math.inf
                expected = "a number from 0 on"
            else:
                usable = 0 < value < 1
                expected = "a number between 0 and 1"
            if not usable:
                fix = f"use the default, {entry.default}"
                raise QvlaError(f"training.{entry.name}", value, expected, fix)
