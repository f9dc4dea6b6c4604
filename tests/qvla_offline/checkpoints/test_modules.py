"""Parts of the networks against what the reference computes with formula-filled weights."""

from __future__ import annotations

import math

import torch

from qvla_offline.checkpoints.backbones import VisionConfig
from qvla_offline.checkpoints.heads import NumberProjector, ResidualMLP, time_token
from qvla_offline.checkpoints.vit import Block

TOLERANCE = {"rtol": 0, "atol": 2e-6}


@torch.no_grad()
def test_the_l1_head_is_that_of_the_reference(vectors: dict, fill, wave) -> None:
    expected = vectors["modules"]["l1_head"]
    head = ResidualMLP(28, 6, 7)
    assert [f"model.{name}" for name in fill(head)] == expected["param_order"]
    torch.testing.assert_close(
        head(wave(1, 56, 4).reshape(1, 8, 28))[0], torch.tensor(expected["out"]), **TOLERANCE
    )


@torch.no_grad()
def test_the_proprioception_projector_is_that_of_the_reference(vectors: dict, fill, wave) -> None:
    projector = NumberProjector(8, 6)
    fill(projector)
    expected = torch.tensor(vectors["modules"]["proprio_projector"]["out"])
    torch.testing.assert_close(projector(wave(1, 8))[0], expected, **TOLERANCE)


@torch.no_grad()
def test_a_film_block_is_that_of_the_reference(vectors: dict, fill, wave) -> None:
    expected = vectors["modules"]["film_block"]
    config = VisionConfig(
        "vit", 28, 14, 8, 2, 2, 32, True, 0, layer_scale=True, attention_pool=False
    )
    block = Block(config, film_width=4)
    names = fill(block, {"scale_factor": "gamma"})
    assert [n if n.startswith(("scale.", "shift.")) else f"block.{n}" for n in names] == expected[
        "param_order"
    ]
    out = block(wave(1, 3, 8), wave(1, 4, phase=0.5))
    torch.testing.assert_close(out[0], torch.tensor(expected["out"]), **TOLERANCE)


def test_the_time_token_is_sines_then_cosines_of_falling_frequencies() -> None:
    token = time_token(torch.tensor([0.0, 25.0]), 8)
    assert token[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    frequencies = [10000 ** (-index / 3) for index in range(4)]
    expected = [math.sin(25 * f) for f in frequencies] + [math.cos(25 * f) for f in frequencies]
    torch.testing.assert_close(token[1], torch.tensor(expected), rtol=0, atol=1e-5)
