"""Independent references for the networks.

They are transformers' decoder, and the rules by which the reference's modules were filled.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from qvla_offline.checkpoints.llama import LlamaForCausalLM


@pytest.fixture(scope="session")
def transformers_decoder() -> Callable[[LlamaForCausalLM], nn.Module]:
    """transformers_decoder(ours) -> a transformers.LlamaForCausalLM with the same weights."""
    from transformers import LlamaConfig
    from transformers import LlamaForCausalLM as Reference

    def make(ours: LlamaForCausalLM) -> nn.Module:
        text = ours.model.config
        config = LlamaConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_hidden_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            num_key_value_heads=text.num_key_value_heads,
            rms_norm_eps=text.rms_norm_eps,
            attn_implementation="eager",
        )
        reference = Reference(config)
        assert list(ours.state_dict()) == list(reference.state_dict())
        reference.load_state_dict(ours.state_dict())
        return reference.eval()

    return make


@pytest.fixture(scope="session")
def fill() -> Callable[..., list[str]]:
    return fill_parameters


@pytest.fixture(scope="session")
def wave() -> Callable[..., Tensor]:
    return wave_input


def fill_parameters(module: nn.Module, renamed: dict[str, str] | None = None) -> list[str]:
    """Fills parameters by the vectors' `fill_rule`.

    Returns their names, with parts renamed as the reference has them.
    """
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


def wave_input(*shape: int, phase: float = 0.0) -> Tensor:
    """The vectors' `input_rule`."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(0.3 * index + phase).float().reshape(shape)
