"""OpenVLA's tokens are those of transformers' greedy generation.

Tested too is the output of which sensitivities are measured.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from qvla_offline.checkpoints.openvla import OpenVLA
from qvla_offline.checkpoints.random_checkpoint import random_inputs
from qvla_ros.actions import token_actions
from qvla_ros.errors import QvlaError
from tests.support.random_model import random_model


@pytest.fixture(scope="module")
def model() -> OpenVLA:
    return random_model("tiny", 2, "openvla")


@torch.no_grad()
def test_tokens_are_those_of_transformers(model: OpenVLA, transformers_decoder) -> None:
    decoder = transformers_decoder(model.language_model)
    seen = set()
    for seed in range(3):
        inputs = random_inputs(model.config, 1, 12 + seed, seed)
        reference = decoder.generate(
            inputs_embeds=model.prefix(inputs),
            max_new_tokens=7,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        tokens = model.generate(inputs)
        assert torch.equal(tokens, reference[:, -7:])
        seen |= set(tokens[0].tolist())
    assert len(seen) > 6


@torch.no_grad()
def test_the_prefix_is_the_image_after_the_first_token(model: OpenVLA) -> None:
    inputs = random_inputs(model.config, 2, 9)
    prefix = model.prefix(inputs)
    words = model.embed(inputs.input_ids)
    patches = model.projector(model.vision_backbone(inputs.pixel_values))
    assert prefix.shape == (2, 4 + 9, 64)
    assert torch.equal(prefix[:, :1], words[:, :1])
    assert torch.equal(prefix[:, 1:5], patches)
    assert torch.equal(prefix[:, 5:], words[:, 1:])


def test_actions_are_bin_centres_and_every_input_moves_them(model: OpenVLA) -> None:
    inputs = random_inputs(model.config, 6, 12)
    actions = model(inputs)
    assert actions.shape == (6, 1, 7)
    expected = token_actions(model.generate(inputs).numpy(), model.config.action_vocabulary)
    torch.testing.assert_close(actions[:, 0], torch.from_numpy(expected).float())
    for field in ("pixel_values", "input_ids"):
        rolled = replace(inputs, **{field: getattr(inputs, field).roll(1, 0)})
        assert (model(rolled) - actions).abs().mean() > 0.05


def test_smooth_actions_follow_a_sure_policy_and_have_gradients(model: OpenVLA) -> None:
    inputs = model.prepare(random_inputs(model.config, 4, 12))
    sure = random_model("tiny", 2, "openvla")
    # all probability on one token: the mean is the bin's centre
    sure.language_model.lm_head.weight.mul_(50.0)
    tokens = inputs.chosen
    action_tokens = (tokens >= model.config.action_vocabulary - 256) & (
        tokens < model.config.action_vocabulary
    )
    assert action_tokens.float().mean() > 0.8
    difference = (sure.smooth_actions(inputs) - sure(inputs))[:, 0][action_tokens].abs()
    assert difference.median() < 1e-3
    model.requires_grad_(True)
    model.smooth_actions(inputs).square().sum().backward()
    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    silent = [name for name, layer in linears.items() if layer.weight.grad is None]
    model.requires_grad_(False)
    assert all(".blocks.2." in name or "attn_pool" in name for name in silent)


def test_prepared_inputs_keep_their_tokens_when_weights_change(model: OpenVLA) -> None:
    inputs = model.prepare(random_inputs(model.config, 1, 12))
    other = random_model("tiny", 3, "openvla")
    assert torch.equal(other.prepare(inputs).chosen, inputs.chosen)
    assert not torch.equal(other.generate(inputs), inputs.chosen)


def test_padding_is_refused(model: OpenVLA) -> None:
    inputs = replace(
        random_inputs(model.config, 2, 9), attention_mask=torch.ones(2, 9, dtype=torch.bool)
    )
    with pytest.raises(QvlaError, match="attention_mask"):
        model(inputs)
