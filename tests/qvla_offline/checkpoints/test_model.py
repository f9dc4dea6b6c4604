"""The policy network agrees with independent references.

They are transformers' Llama, and the network's own runs under changed inputs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from qvla_offline.checkpoints.config import TextConfig, parse_config
from qvla_offline.checkpoints.llama import Cache, LlamaForCausalLM
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import random_inputs
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from tests.support.random_model import random_model


@pytest.fixture(scope="module")
def model() -> OpenVLAOFT:
    return random_model("tiny", seed=3)


@pytest.fixture(scope="module")
def decoders(transformers_decoder) -> tuple[LlamaForCausalLM, nn.Module]:
    """Ours with shared key heads, and that of transformers with the same weights."""
    ours = LlamaForCausalLM(TextConfig(128, 32, 48, 2, 4, 2, rms_norm_eps=1e-5, pad_token_id=0))
    return ours, transformers_decoder(ours)


@torch.no_grad()
def test_decoder_equals_transformers_llama_with_a_bidirectional_mask(decoders) -> None:
    ours, reference = decoders
    embeddings = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    expected = reference.model(
        inputs_embeds=embeddings, attention_mask=torch.zeros(2, 1, 9, 9), use_cache=False
    ).last_hidden_state
    torch.testing.assert_close(ours.model(embeddings, torch.arange(9)[None]), expected)


@torch.no_grad()
def test_decoder_equals_transformers_llama_when_it_sees_only_backwards(decoders) -> None:
    ours, reference = decoders
    embeddings = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    expected = reference.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours.model.causal(embeddings, Cache()), expected)
    cache = Cache()
    pieces = [ours.model.causal(part, cache) for part in embeddings.split([5, 1, 2, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)
    assert cache.length == 9


def test_hidden_states_are_taken_one_before_the_placeholders(model: OpenVLAOFT) -> None:
    inputs = random_inputs(model.config, 1, 19)
    seen: list[torch.Tensor] = []
    hook = model.language_model.model.register_forward_hook(
        lambda _, args, out: seen.extend([args[0], out])
    )
    slots = model.action_hidden_states(inputs)
    hook.remove()
    sequence, hidden = seen
    inserted = 2 * model.config.num_patches + 1
    assert sequence.shape[1] == inserted + 19 + 56 + 1
    assert torch.equal(slots, hidden[:, inserted + 18 : inserted + 18 + 56])
    assert not sequence[:, inserted + 19 : -1].any()  # placeholders carry no embedding
    assert torch.equal(sequence[0, -1], model.language_model.model.embed_tokens.weight[2])
    assert torch.equal(sequence[0, 0], model.language_model.model.embed_tokens.weight[1])


def test_padded_batch_equals_single_runs(model: OpenVLAOFT) -> None:
    lengths = [9, 14, 11]
    full = random_inputs(model.config, 3, max(lengths))
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    padded = model(replace(full, input_ids=full.input_ids.where(mask, 467), attention_mask=mask))
    for row, length in enumerate(lengths):
        single = model(
            PolicyInputs(
                full.pixel_values[row : row + 1],
                full.input_ids[row : row + 1, :length],
                full.proprio[[row]],
            )
        )
        torch.testing.assert_close(padded[[row]], single, rtol=1e-5, atol=1e-6)


def test_every_input_moves_the_actions(model: OpenVLAOFT) -> None:
    inputs = random_inputs(model.config, 4, 12)
    actions = model(inputs)
    assert actions.shape == (4, 8, 7)
    assert actions.abs().max() < 2.0
    channels = inputs.pixel_values.shape[1]
    changed = [
        replace(inputs, proprio=-inputs.proprio),
        replace(inputs, input_ids=inputs.input_ids.roll(1, 0)),
    ]
    for group in range(0, channels, 3):
        pixels = inputs.pixel_values.clone()
        pixels[:, group : group + 3] *= -1
        changed.append(replace(inputs, pixel_values=pixels))
    for other in changed:
        assert (model(other) - actions).abs().mean() > 0.005


def test_targets_of_a_7b_checkpoint_are_those_of_the_released_rule() -> None:
    text = {"model_type": "llama", "vocab_size": 32064, "pad_token_id": 32000}
    data = {"vision_backbone_id": "dinosiglip-vit-so-224px", "text_config": text}
    with torch.device("meta"):
        model = OpenVLAOFT(parse_config(data))
    targets = quantization_targets(model)
    assert len(targets) == 435
    assert sum(module.weight.shape[0] for module in targets.values()) == 1_865_024
    assert sum(module.weight.numel() for module in targets.values()) == 7_205_570_048
    assert sum(targets[name].weight.shape[0] for name in unexecuted_targets(model)) == 29_344
    assert next(iter(targets)) == "vision_backbone.featurizer.patch_embed.proj"


def test_unexecuted_targets_are_exactly_those_without_gradient() -> None:
    model = random_model("tiny").requires_grad_(True)
    model(random_inputs(model.config, 2, 10)).square().sum().backward()
    silent = {
        name for name, module in quantization_targets(model).items() if module.weight.grad is None
    }
    assert silent == unexecuted_targets(model)
    assert all(
        isinstance(module, nn.Linear | nn.Conv2d) for module in quantization_targets(model).values()
    )
