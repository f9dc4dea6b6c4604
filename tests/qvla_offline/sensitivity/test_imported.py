"""A released .pt is completed from the checkpoint that it scores, and from no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.sensitivity.imported import completed
from qvla_offline.sensitivity.store import Sensitivity
from qvla_ros.errors import QvlaError


def test_row_lengths_and_layers_that_never_run_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint")
    model = empty_policy(checkpoint)
    targets = quantization_targets(model)
    scores = {n: np.ones((1, m.weight.shape[0]), np.float32) for n, m in targets.items()}
    found = completed(Sensitivity("imported", (4,), scores), checkpoint)
    assert found.columns == {n: m.weight[0].numel() for n, m in targets.items()}
    assert set(found.not_executed) == unexecuted_targets(model)
    first = next(iter(targets))
    for name, rows in ((first, len(scores[first][0]) + 1), ("no.such.layer", 4)):
        other = Sensitivity("imported", (4,), scores | {name: np.ones((1, rows), np.float32)})
        with pytest.raises(QvlaError, match=f"^proxy_pt: {name}: got {rows} channels"):
            completed(other, checkpoint)
