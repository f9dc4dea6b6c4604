"""Small checkpoints with random weights: what tests and benchmarks run when what a policy knows does not matter."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, TextConfig, VisionConfig
from qvla_offline.checkpoints.io import save_checkpoint
from qvla_offline.checkpoints.model import OpenVLAOFT
from qvla_offline.reference.tokenizer import padded_vocabulary, train_tokenizer
from torch import nn

from qvla_ros.errors import QvlaError

# image size, patch size, (width, heads) of the two ViTs, ViT depth, decoder width, heads, MLP width, layers
SIZES = {
    "tiny": (28, 14, (32, 2), (48, 3), 3, 64, 4, 96, 2),
    "small": (56, 14, (64, 4), (96, 6), 4, 128, 4, 256, 4),
}
UNNORM_KEY = "libero_object_no_noops"


def random_config(size: str, vocab_size: int, pad_token_id: int) -> PolicyConfig:
    """The config of one of SIZES: a DINOv2-like and a SigLIP-like ViT, a Llama, LIBERO's chunk."""
    if size not in SIZES:
        raise QvlaError("size", size, f"one of {', '.join(SIZES)}", "choose with --size")
    image, patch, dino, siglip, depth, width, heads, mlp, layers = SIZES[size]
    first = VisionConfig(
        "vit_large_patch14_reg4_dinov2.lvd142m",
        image_size=image,
        patch_size=patch,
        embed_dim=dino[0],
        depth=depth,
        num_heads=dino[1],
        mlp_hidden=4 * dino[0],
        class_token=True,
        reg_tokens=4,
        layer_scale=True,
        attention_pool=False,
    )
    second = replace(
        first,
        timm_id="vit_so400m_patch14_siglip_224",
        embed_dim=siglip[0],
        num_heads=siglip[1],
        mlp_hidden=round(3.75 * siglip[0]),
        class_token=False,
        reg_tokens=0,
        layer_scale=False,
        attention_pool=True,
    )
    text = TextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        pad_token_id=pad_token_id,
    )
    return PolicyConfig("dinosiglip-vit-so-224px", "resize-naive", (first, second), text, DecodingConfig())


@torch.no_grad()
def randomize(model: OpenVLAOFT, generator: torch.Generator) -> None:
    """Weights drawn so that every input moves the actions: unit-gain layers, gains near 1, small biases."""
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "layernorm.weight", "ffn.0.weight")):
            parameter.normal_(1.0, 0.1, generator=generator)
        elif name.endswith("scale_factor"):
            parameter.uniform_(0.2, 1.0, generator=generator)
        elif name.endswith(("token", "pos_embed", "latent", "embed_tokens.weight")):
            parameter.normal_(0.0, 0.5, generator=generator)
        elif parameter.ndim > 1:
            fan_in = math.prod(parameter.shape[1:])
            parameter.normal_(0.0, fan_in**-0.5, generator=generator)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    head = model.action_head.model
    nn.init.ones_(head.layer_norm1.weight)
    head.fc2.weight.mul_(0.3)  # keeps most actions within [-1, 1]


def plausible_statistics(oft: DecodingConfig, generator: torch.Generator) -> dict[str, Any]:
    """Ranges like LIBERO's: six motion deltas within [-1, 1], a gripper in [0, 1] left as it is, state in metres."""

    def ranges(low: list[float], high: list[float]) -> dict[str, Any]:
        lower, upper = torch.tensor(low), torch.tensor(high)
        spread = (upper - lower) * (0.1 * torch.rand(len(low), generator=generator))
        rows = {
            "mean": (lower + upper) / 2,
            "std": (upper - lower) / 4,
            "max": upper,
            "min": lower,
            "q01": lower + spread,
            "q99": upper - spread,
        }
        return {name: [round(value, 6) for value in row.tolist()] for name, row in rows.items()}

    motion = oft.action_dim - 1
    action = ranges([-0.94] * motion + [0.0], [0.94] * motion + [1.0])
    action["q01"][-1], action["q99"][-1] = 0.0, 1.0
    low = [-0.48, -0.31, 0.008, 0.35, -3.64, -1.84, 0.0005, -0.042]
    high = [0.21, 0.39, 1.31, 3.72, 3.56, 1.39, 0.042, -0.0005]
    proprio = ranges(low[: oft.proprio_dim], high[: oft.proprio_dim])
    return {
        "action": {**action, "mask": [True] * motion + [False]},
        "proprio": proprio,
        "num_transitions": 66984,
        "num_trajectories": 454,
    }


def random_model(size: str = "tiny", seed: int = 0) -> OpenVLAOFT:
    """A policy in eval mode, float32, equal for equal seeds."""
    tokenizer = train_tokenizer()
    config = random_config(size, padded_vocabulary(tokenizer), tokenizer.token_to_id("<PAD>"))
    model = OpenVLAOFT(config)
    randomize(model, torch.Generator().manual_seed(seed))
    return model.eval().requires_grad_(False)


def write_random_checkpoint(
    directory: str | Path, family: str = "openvla-oft", size: str = "tiny", seed: int = 0
) -> Path:
    """Write every file that a real checkpoint directory has; returns its path."""
    if family != "openvla-oft":
        raise QvlaError("family", family, "openvla-oft", "choose with --family")
    model = random_model(size, seed)
    statistics = plausible_statistics(model.config.decoding, torch.Generator().manual_seed(seed))
    save_checkpoint(directory, model, train_tokenizer(), {UNNORM_KEY: statistics}, step=1000)
    return Path(directory)
