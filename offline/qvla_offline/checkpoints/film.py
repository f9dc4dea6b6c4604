"""OpenVLA-OFT's FiLM file: the ViTs that the prompt modulates, wrapped as they are in training.

There the ViTs are wrapped twice: each layer in its LoRA adapter, each block in FiLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from qvla_offline.checkpoints import lora
from qvla_offline.checkpoints.stored import StoredTensor, component_tensors

FILM_PART = "vision_backbone"
LARGEST_LORA_ALPHA = 16  # openvla-oft trains with alpha = min(rank, 16)
LORA_RANK = 32
_LAYERS = (".scale.", ".shift.")


def is_film_layer(name: str) -> bool:
    """Whether a tensor is one that only FiLM has."""
    return any(part in name for part in _LAYERS)


def film_name(key: str) -> str:
    """The name of a tensor of the FiLM file without the FiLM wrapper around its block."""
    return key.replace(".block.", ".")


def film_tensors(file: Path, scaling: float | None = None) -> dict[str, StoredTensor]:
    """The ViTs in the FiLM file under our names, with their LoRA factors merged.

    scaling: of the adapter; None takes alpha = min(rank, 16) over rank, which openvla-oft trains
    with. Merged weights are float32, since upstream runs the factors beside the weights: their sum
    is never rounded to the 16 bits of the file.
    """
    stored = {
        film_name(name.removeprefix(f"{FILM_PART}.")): tensor
        for name, tensor in component_tensors(file, FILM_PART).items()
    }
    rank = next((tensor.shape[0] for name, tensor in stored.items() if ".lora_A." in name), 1)
    return lora.merged(
        stored, min(rank, LARGEST_LORA_ALPHA) / rank if scaling is None else scaling, torch.float32
    )


def film_state(
    tensors: Mapping[str, Tensor], wrapped: set[str], rank: int = LORA_RANK
) -> dict[str, Tensor]:
    """Our ViT tensors (`vision_backbone.featurizer...`) under the names of the FiLM file.

    wrapped: the layers that carry an adapter. Their factors change nothing: A is random, B is zero.
    """
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        head, found, rest = module.partition(".blocks.")
        index, _, inner = rest.partition(".")
        own = is_film_layer(name)
        there = f"{head}.blocks.{index}.block.{inner}" if found and not own else module
        if module in wrapped and not own:
            state[f"{there}.base_layer.{leaf}"] = tensor
            if leaf == "weight":
                first = torch.randn((rank, *tensor.shape[1:]), generator=generator) * 0.01
                state[f"{there}.lora_A.default.weight"] = first.to(tensor.dtype)
                tail = (1,) * (tensor.ndim - 2)
                state[f"{there}.lora_B.default.weight"] = tensor.new_zeros(
                    (tensor.shape[0], rank, *tail)
                )
        else:
            state[f"{there}.{leaf}"] = tensor
    return state
