"""Other statistics for a trained policy: the numbers change, what the arm does does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import random_config
from qvla_reference.renormalize import renormalize
from qvla_ros.actions import unnormalize
from qvla_ros.bundle import Statistics
from qvla_ros.preprocess import normalize_proprioception


def made_up_statistics(seed: int) -> dict[str, dict[str, list]]:
    rng = np.random.default_rng(seed)

    def ranges(size: int) -> dict[str, list]:
        low = rng.uniform(-1.0, -0.5, size)
        return {"q01": low.tolist(), "q99": (low + rng.uniform(0.8, 1.6, size)).tolist()}

    return {"action": {**ranges(7), "mask": [True] * 6 + [False]}, "proprio": ranges(8)}


def physical_actions(
    model: OpenVLAOFT, inputs: PolicyInputs, state: np.ndarray, statistics: dict
) -> np.ndarray:
    ranges = statistics["proprio"]
    proprio = normalize_proprioception(state, ranges["q01"], ranges["q99"]).astype(np.float32)
    action = statistics["action"]
    low = np.array(action["q01"])
    high = np.array(action["q99"])
    levels = Statistics(low=low, high=high, min=low, max=high, mask=np.array(action["mask"]))
    with torch.inference_mode():
        normalized = model(replace(inputs, proprio=torch.from_numpy(proprio)))
    return unnormalize(normalized.double().numpy(), levels)


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_other_statistics_leave_the_physical_actions_alone(old_seed: int, new_seed: int) -> None:
    old = made_up_statistics(old_seed)
    new = made_up_statistics(new_seed)
    config = random_config("tiny", 64, 0)
    torch.manual_seed(old_seed)
    model = OpenVLAOFT(config).eval()
    rng = np.random.default_rng(new_seed)
    pixels = torch.randn(2, 3 * len(config.vision) * 2, *[config.vision[0].image_size] * 2)
    inputs = PolicyInputs(pixels, torch.tensor([[1, 5, 9]] * 2), torch.zeros(2, 8))
    low = np.maximum(old["proprio"]["q01"], new["proprio"]["q01"])
    high = np.minimum(old["proprio"]["q99"], new["proprio"]["q99"])
    state = low + (high - low) * rng.uniform(0.0, 1.0, (2, 8))  # neither clips it
    before = physical_actions(model, inputs, state, old)
    renormalize(model, old, new)
    np.testing.assert_allclose(physical_actions(model, inputs, state, new), before, atol=1e-5)
