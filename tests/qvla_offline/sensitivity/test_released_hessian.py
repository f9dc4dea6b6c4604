"""`--method hessian` gives the numbers of the released script, on all 112 layers of a policy.

The last block of each ViT is among them: timm runs it and drops its output, so the script sees it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import SIZES, write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.sensitivity.hessian import hessian_scores

BITS = (0, 2, 4, 8)


@pytest.fixture(scope="module")
def released() -> dict[str, list[float]]:
    file = Path(__file__).parents[2] / "data" / "released_hessian.json"
    return json.loads(file.read_text())["layers"]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setitem(SIZES, "deep", (28, 14, (32, 2), (48, 3), 7, 64, 4, 96, 7))
    return load_checkpoint(write_random_checkpoint(tmp_path / "deep", "openvla", "deep", seed=3))


def inputs(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three pairs of normalised pixels and token ids."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for index in range(3):
        pixels = torch.randn(1, 6, size, size, generator=generator)
        ids = torch.randint(300, 500, (1, 9 + index), generator=generator)
        pairs.append((pixels, torch.cat([torch.tensor([[1]]), ids], 1)))
    return pairs


def test_every_layer_is_scored_as_the_released_script_scores_it(
    checkpoint: Checkpoint, released: dict[str, list[float]]
) -> None:
    model = checkpoint.model

    def one_pass_over_the_prompt(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        pixels, ids = pair
        patches = model.projector(model.vision_backbone(pixels))
        text = model.embed(ids)
        return model.language_model.model.causal(torch.cat([text[:, :1], patches, text[:, 1:]], 1))

    model.forward = one_pass_over_the_prompt
    targets = quantization_targets(model)
    found = {}
    samples = inputs(checkpoint.config.input_size)
    for finished in hessian_scores(Blockwise.resident(model), targets, samples, BITS):
        found |= finished
    assert len(found) == len(released) == 112
    for name, numbers in released.items():
        scores, counts = found[name]
        ours = [*scores.double().sum(dim=1).tolist(), float(scores[BITS.index(4), -1])]
        assert ours == pytest.approx(numbers, rel=1e-3), name
        assert counts is (name not in unexecuted_targets(model))
    assert not any(vit.runs_last_block for vit in model.vision_backbone.children())
