"""What counts as a block, and which weights are in memory when."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from qvla_offline.blockwise.weights import BlockWeights, blocks_of, members_of
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model


@pytest.mark.parametrize(
    "family", ["openvla", "openvla_oft", "openvla_oft_film", "openvla_oft_diffusion", "univla"]
)
def test_blocks_hold_every_target_once_and_none_spans_two_layers_of_a_network(family: str) -> None:
    model = random_model("tiny", family=family)
    blocks = blocks_of(model)
    targets = quantization_targets(model)
    owners = [name for names in members_of(blocks, targets).values() for name in names]
    assert sorted(owners) == sorted(targets)
    assert {"language_model.model.layers.1", "vision_backbone.featurizer.blocks.0"} <= set(blocks)
    assert "language_model.model.embed_tokens" in blocks
    outside = {
        name
        for name, _ in model.named_parameters()
        if not name.startswith(tuple(f"{b}." for b in blocks))
    }
    assert {name.rpartition(".")[2] for name in outside} == {"cls_token", "reg_token", "pos_embed"}


def test_a_model_without_a_list_of_modules_is_one_block() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    assert blocks_of(model) == {"": model}
    assert blocks_of(nn.Tanh()) == {}


@pytest.mark.parametrize("kept_bytes", [0, 1e9])
def test_only_the_loaded_block_and_what_fits_have_weights(kept_bytes: float) -> None:
    full = random_model("tiny")
    model = empty_model(full.config)
    state = {name: tensor.half() for name, tensor in full.state_dict().items()}
    weights = BlockWeights(model, state, kept_bytes=kept_bytes)
    first, second = (f"language_model.model.layers.{index}" for index in range(2))
    with weights.loaded(first) as block:
        for name, parameter in block.named_parameters():
            assert torch.equal(parameter, state[f"{first}.{name}"].float())
            assert not parameter.requires_grad
    with weights.loaded(second):
        elsewhere = {p.is_meta for p in weights.blocks[first].parameters()}
        assert elsewhere == ({False} if kept_bytes else {True})
    assert not model.vision_backbone.featurizer.pos_embed.is_meta
    with weights.loaded(first) as block:  # once more, from the tensors or from what was kept
        assert torch.equal(block.mlp.up_proj.weight, state[f"{first}.mlp.up_proj.weight"].float())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_when_its_block_is_filled(value: float) -> None:
    full = random_model("tiny")
    state = full.state_dict()
    name = "language_model.model.layers.1.input_layernorm.weight"
    state[name] = torch.full_like(state[name], value)
    weights = BlockWeights(empty_model(full.config), state)
    with weights.loaded("language_model.model.layers.0"):
        pass
    with (
        pytest.raises(QvlaError, match=rf"^{re.escape(name)}: .*finite.*again"),
        weights.loaded("language_model.model.layers.1"),
    ):
        pass


def test_what_is_kept_stays_within_its_bytes() -> None:
    full = random_model("tiny")
    model = empty_model(full.config)
    budget = 100_000
    weights = BlockWeights(model, full.state_dict(), kept_bytes=budget)
    for name in weights.blocks:
        with weights.loaded(name):
            pass
    inside = [p for block in weights.blocks.values() for p in block.parameters() if not p.is_meta]
    assert 0 < sum(parameter.nbytes for parameter in inside) <= budget
