"""Parts of the networks against what the reference computes with formula-filled weights."""

from __future__ import annotations

import math

import torch
from qvla_offline.checkpoints.config import VisionConfig
from qvla_offline.checkpoints.heads import NumberProjector, ResidualMLP, time_token
from qvla_offline.checkpoints.vit import Block
from torch import Tensor, nn

TOLERANCE = {"rtol": 0, "atol": 2e-6}


def fill(module: nn.Module, renamed: dict[str, str] | None = None) -> list[str]:
    """Parameters by the vectors' `fill_rule`; returns their names, with parts renamed as the reference has them."""
    names = []
    for k, (name, parameter) in enumerate(module.named_parameters()):
        index = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
        values = 0.1 * torch.sin(1.7 * index + k)
        for ours, theirs in (renamed or {}).items():
            name = name.replace(ours, theirs)
        if name.endswith(".g") or ("norm" in name and name.endswith("weight")):
            values = values + 1
        parameter.data = values.float().reshape(parameter.shape)
        names.append(name)
    return names


def wave(*shape: int, phase: float = 0.0) -> Tensor:
    """The vectors' `input_rule`."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(0.3 * index + phase).float().reshape(shape)


@torch.no_grad()
def test_the_l1_head_is_that_of_the_reference(vectors: dict) -> None:
    expected = vectors["modules"]["l1_head"]
    head = ResidualMLP(28, 6, 7)
    assert [f"model.{name}" for name in fill(head)] == expected["param_order"]
    torch.testing.assert_close(head(wave(1, 56, 4).reshape(1, 8, 28))[0], torch.tensor(expected["out"]), **TOLERANCE)


@torch.no_grad()
def test_the_proprioception_projector_is_that_of_the_reference(vectors: dict) -> None:
    projector = NumberProjector(8, 6)
    fill(projector)
    expected = torch.tensor(vectors["modules"]["proprio_projector"]["out"])
    torch.testing.assert_close(projector(wave(1, 8))[0], expected, **TOLERANCE)


@torch.no_grad()
def test_a_film_block_is_that_of_the_reference(vectors: dict) -> None:
    expected = vectors["modules"]["film_block"]
    config = VisionConfig("vit", 28, 14, 8, 2, 2, 32, True, 0, layer_scale=True, attention_pool=False)
    block = Block(config, film_width=4)
    names = fill(block, {"scale_factor": "gamma"})
    assert [n if n.startswith(("scale.", "shift.")) else f"block.{n}" for n in names] == expected["param_order"]
    out = block(wave(1, 3, 8), wave(1, 4, phase=0.5))
    torch.testing.assert_close(out[0], torch.tensor(expected["out"]), **TOLERANCE)


def test_the_time_token_is_sines_then_cosines_of_falling_frequencies() -> None:
    token = time_token(torch.tensor([0.0, 25.0]), 8)
    assert token[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    frequencies = [10000 ** (-index / 3) for index in range(4)]
    expected = [math.sin(25 * f) for f in frequencies] + [math.cos(25 * f) for f in frequencies]
    torch.testing.assert_close(token[1], torch.tensor(expected), rtol=0, atol=1e-5)
