"""UniVLA's action decoder agrees with the reference, its latent tokens with their statistics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from qvla_offline.checkpoints.llama import Cache
from qvla_offline.checkpoints.random_checkpoint import random_inputs
from qvla_offline.checkpoints.univla import ActionDecoder, UniVLA, choose_token
from tests.support.random_model import random_model


@pytest.fixture(scope="module")
def model() -> UniVLA:
    return random_model("tiny", 1, "univla")


@torch.no_grad()
def test_the_action_decoder_is_that_of_the_reference(vectors: dict, fill, wave) -> None:
    expected = vectors["modules"]["univla_decoder"]
    decoder = ActionDecoder(hidden_size=8, width=16, num_heads=2, chunk_length=3, action_dim=7)
    assert fill(decoder) == expected["param_order"]
    latent = wave(1, 6, 8)
    visual = wave(1, 5, 8, phase=1.0)
    pooled = decoder.visual_pool(visual)[0, :4]
    torch.testing.assert_close(
        pooled, torch.tensor(expected["visual_pool_head4"]), rtol=0, atol=2e-6
    )
    out = decoder(latent, visual).flatten()
    torch.testing.assert_close(out, torch.tensor(expected["out"]), rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_decoder_reads_the_last_prompt_token_and_three_latent_ones(
    model: UniVLA, transformers_decoder
) -> None:
    inputs = random_inputs(model.config, 1, 11)
    reference = transformers_decoder(model.language_model)
    prefix = model.prefix(inputs)
    tokens = reference.generate(
        inputs_embeds=prefix, max_new_tokens=4, do_sample=False, bad_words_ids=[[2]], pad_token_id=0
    )
    assert torch.equal(model.generate(inputs), tokens[:, -4:])
    sequence = torch.cat([prefix, model.embed(tokens[:, -4:])], dim=1)
    hidden = reference.model(inputs_embeds=sequence).last_hidden_state
    last = prefix.shape[1] - 1
    latent = hidden[:, last : last + 4]
    visual = hidden[:, : model.config.num_patches]
    torch.testing.assert_close(
        model(inputs), model.action_decoder(latent, visual), rtol=1e-4, atol=1e-5
    )


def test_every_input_moves_the_actions_and_gradients_reach_the_decoder(model: UniVLA) -> None:
    inputs = random_inputs(model.config, 6, 12)
    actions = model(inputs)
    assert actions.shape == (6, 12, 7)
    assert actions.abs().max() <= 1.0
    for field in ("pixel_values", "input_ids"):
        rolled = replace(inputs, **{field: getattr(inputs, field).roll(1, 0)})
        assert (model(rolled) - actions).abs().mean() > 0.005
    model.requires_grad_(True)
    model.smooth_actions(model.prepare(inputs)).square().sum().backward()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    silent = {name for name, layer in layers.items() if layer.weight.grad is None}
    model.requires_grad_(False)
    assert all(".blocks.2." in name or "attn_pool" in name or "lm_head" in name for name in silent)


def warped_shares(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities after transformers' own temperature, top-k and top-p."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = logits.clone()
    scores[:, 2] = -math.inf
    for warp in (TemperatureLogitsWarper(0.75), TopKLogitsWarper(50), TopPLogitsWarper(0.9)):
        scores = warp(torch.zeros(1, 1, dtype=torch.long), scores)
    return scores.softmax(-1)


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_latent_tokens_are_drawn_as_transformers_draws_them(gain: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = gain * torch.randn(1, 90, generator=generator)
    count = 40_000
    gumbel = -torch.log(-torch.log(torch.rand(count, 50, generator=generator)))
    drawn = choose_token(logits.expand(count, -1), gumbel)
    found = torch.bincount(drawn[:, 0], minlength=90) / count
    expected = warped_shares(logits)[0]
    assert not found[expected == 0].any()
    assert (found - expected).abs().max() < 5 * (0.25 / count) ** 0.5


def test_without_noise_the_likeliest_token_is_taken_but_never_the_stop_token() -> None:
    logits = torch.zeros(1, 60)
    logits[0, 2] = 9.0
    logits[0, 17] = 5.0
    assert choose_token(logits, None).tolist() == [[17]]


def test_noise_changes_the_tokens_and_the_cache_starts_anew(model: UniVLA) -> None:
    inputs = random_inputs(model.config, 1, 12)
    gumbel = -torch.log(
        -torch.log(torch.rand(30, 1, 4, 50, generator=torch.Generator().manual_seed(0)))
    )
    tokens = torch.stack([model.generate(inputs, noise) for noise in gumbel])
    assert len({tuple(row) for row in tokens[:, 0].tolist()}) > 5
    assert torch.equal(model.generate(inputs), model.generate(inputs))
    assert Cache().length == 0
