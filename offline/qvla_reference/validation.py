"""The episodes that training never reads, and the action error on them."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_reference.augment import NONE
from qvla_reference.batches import Batcher
from qvla_reference.samples import SampleSet, TrainingSamples

# one episode in so many is never trained on; their error is the printed held-out error
HELD_OUT_EVERY = 20


def is_held_out(path: Path) -> bool:
    """Whether an episode file belongs to the validation set, by the numbers in its name.

    One in HELD_OUT_EVERY does. Tasks from 10 on hold out other numbers each, because suites of many
    tasks have few episodes of each.
    """
    number, task_id = (int(name.rpartition("_")[2]) for name in (path.stem, path.parent.name))
    return (number + (task_id if task_id >= 10 else 0)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def held_out_errors(
    model: OpenVLAOFT,
    validation: SampleSet,
    batcher: Batcher,
    weights: Tensor,
    pool: Executor,
    count: int = 96,
) -> dict[str, float]:
    """Measures the action error of each suite on `count` held-out samples without noise.

    Units: controller units per number. The samples are the same every time, as long as no episode
    is added.
    """

    def error(samples: TrainingSamples) -> float:
        with torch.no_grad():  # of a thread
            batch = batcher.batch(samples, validation.tasks, NONE, 0)
            return float(((model(batch.inputs) - batch.chunks).abs() * weights).mean())

    errors = {}
    for suite in validation.episode_counts():
        drawn = validation.draw(count, np.random.default_rng(0), {suite: 1.0})
        errors[suite] = float(np.mean(list(pool.map(error, [drawn.part(i, 4) for i in range(4)]))))
    return errors
