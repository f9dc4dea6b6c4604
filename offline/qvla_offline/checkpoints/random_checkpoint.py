"""Checkpoints with random weights, for tests, dry runs and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from qvla_offline.checkpoints.backbones import BACKBONES, VisionConfig
from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, TextConfig
from qvla_offline.checkpoints.empty import empty_model
from qvla_offline.checkpoints.family import families, family_of
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_offline.checkpoints.save import SHARD_BYTES, Belongings, write_checkpoint
from qvla_offline.checkpoints.tokenizer import pad_token_id, padded_vocabulary, train_tokenizer
from qvla_ros.errors import QvlaError

# image size, patch size, (width, heads) of the two ViTs, ViT depth, decoder width, heads, MLP
# width, layers
SIZES = {
    "tiny": (28, 14, (32, 2), (48, 3), 3, 64, 4, 96, 2),
    "small": (56, 14, (64, 4), (96, 6), 4, 128, 4, 256, 4),
}
BACKBONE = "dinosiglip-vit-so-224px"
# of Llama-2 with OpenVLA's padding
FULL_VOCABULARY = 32064
FULL_PAD = 32000
OFT_ON_LIBERO = DecodingConfig()
UNNORM_KEY = "libero_object_no_noops"


def variants() -> dict[str, DecodingConfig]:
    """{name for --family: what is decoded}, of all families."""
    return {
        name: decoding
        for family in families().values()
        for name, decoding in family.random.variants.items()
    }


def decoding_of(family: str) -> DecodingConfig:
    """The decoding of one of the variants; its name may be written with dashes."""
    name = family.replace("-", "_")
    known = variants()
    if name not in known:
        raise QvlaError("family", family, f"one of {', '.join(known)}", "choose with --family")
    return known[name]


def random_tokenizer(family: str) -> Tokenizer:
    """The project's small tokenizer (Llama-2's may not be passed on) with the family's tokens."""
    tokenizer = train_tokenizer()
    names = family_of(decoding_of(family).kind).random.extra_tokens
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return tokenizer


def random_config(
    size: str,
    vocab_size: int,
    pad_token_id: int,
    decoding: DecodingConfig = OFT_ON_LIBERO,
) -> PolicyConfig:
    """The config of one of SIZES: a DINOv2-like and a SigLIP-like ViT, a Llama."""
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
    decoding = family_of(decoding.kind).random.at_small_size(decoding)
    return PolicyConfig(BACKBONE, "resize-naive", (first, second), text, decoding)


def full_config(
    decoding: DecodingConfig, num_layers: int = TextConfig.num_hidden_layers
) -> PolicyConfig:
    """The config of the released 7B policies, with fewer decoder layers if asked."""
    text = TextConfig(
        vocab_size=FULL_VOCABULARY, pad_token_id=FULL_PAD, num_hidden_layers=num_layers
    )
    return PolicyConfig(BACKBONE, "resize-naive", BACKBONES[BACKBONE], text, decoding)


def random_tensors(
    config: PolicyConfig, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 tensor) in the order of the state dict, each drawn when it is asked for.

    Drawn so that every input moves the actions: unit-gain layers, gains near 1, small biases.
    """
    adjust = family_of(config.decoding.kind).random.adjust
    for name, empty in empty_model(config).state_dict().items():
        tensor = _draw(name, empty.shape, generator)
        adjust(name, tensor, config)
        yield name, tensor


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    tensor = torch.empty(shape)
    if name.endswith("layer_norm1.weight"):
        return tensor.fill_(1.0)
    if name.endswith(
        (
            "norm.weight",
            "norm1.weight",
            "norm2.weight",
            "layernorm.weight",
            "ffn.0.weight",
            "norm.g",
        )
    ):
        return tensor.normal_(1.0, 0.1, generator=generator)
    if name.endswith("scale_factor"):
        return tensor.uniform_(0.2, 1.0, generator=generator)
    if name.endswith(("token", "pos_embed", "latent", "latents", "embed_tokens.weight")):
        return tensor.normal_(0.0, 0.5, generator=generator)
    if len(shape) == 1:
        return tensor.normal_(0.0, 0.02, generator=generator)
    return tensor.normal_(0.0, math.prod(shape[1:]) ** -0.5, generator=generator)


@torch.no_grad()
def randomize(model: VisionLanguageModel, generator: torch.Generator) -> None:
    """Fills a model with `random_tensors`."""
    state = model.state_dict()
    for name, tensor in random_tensors(model.config, generator):
        state[name].copy_(tensor)


def plausible_statistics(decoding: DecodingConfig, generator: torch.Generator) -> dict[str, Any]:
    """Ranges like LIBERO's: six motion deltas within [-1, 1], a gripper in [0, 1] left as it is,
    state in metres.
    """

    def ranges(low: list[float], high: list[float]) -> dict[str, Any]:
        lower = torch.tensor(low)
        upper = torch.tensor(high)
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

    motion = decoding.action_dim - 1
    action = ranges([-0.94] * motion + [0.0], [0.94] * motion + [1.0])
    action["q01"][-1] = 0.0
    action["q99"][-1] = 1.0
    low = [-0.48, -0.31, 0.008, 0.35, -3.64, -1.84, 0.0005, -0.042]
    high = [0.21, 0.39, 1.31, 3.72, 3.56, 1.39, 0.042, -0.0005]
    # a dataset has them even if the policy does not read them
    count = decoding.proprio_dim or len(low)
    return {
        "action": {**action, "mask": [True] * motion + [False]},
        "proprio": ranges(low[:count], high[:count]),
        "num_transitions": 66984,
        "num_trajectories": 454,
    }


def random_inputs(
    config: PolicyConfig, batch: int = 1, length: int = 20, seed: int = 0
) -> PolicyInputs:
    """Noise for images, prompts of `length` tokens and proprioception; equal for equal seeds."""
    generator = torch.Generator().manual_seed(seed)
    decoding = config.decoding
    size = config.vision[0].image_size
    channels = 3 * len(config.vision) * decoding.num_images
    ids = torch.randint(3, min(400, config.text.vocab_size), (batch, length), generator=generator)
    ids[:, 0] = 1
    pixels = torch.randn(batch, channels, size, size, generator=generator)
    proprio = (
        torch.rand(batch, decoding.proprio_dim, generator=generator) * 2 - 1
        if decoding.proprio_dim
        else None
    )
    return PolicyInputs(pixels, ids, proprio)


def write_random_checkpoint(
    directory: str | Path,
    family: str = "openvla_oft",
    size: str = "tiny",
    seed: int = 0,
    num_layers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Writes every file that a real checkpoint directory has; returns its path.

    size: one of SIZES (float16), or "full": the 7B dimensions in bfloat16 and shards, a tensor at a
    time, with `num_layers` decoder layers (default: all 32). progress: called with the name of each
    tensor.
    """
    decoding = decoding_of(family)
    tokenizer = random_tokenizer(family)
    if num_layers is not None and (size != "full" or num_layers < 1):
        raise QvlaError(
            "num_layers",
            num_layers,
            "1 or more, at full size only",
            "leave it out, or use --full_size",
        )
    if size == "full":
        config = full_config(decoding, num_layers or TextConfig.num_hidden_layers)
        dtype = torch.bfloat16
    else:
        config = random_config(
            size, padded_vocabulary(tokenizer), pad_token_id(tokenizer), decoding
        )
        dtype = torch.float16
    statistics = plausible_statistics(decoding, torch.Generator().manual_seed(seed))
    tensors = random_tensors(config, torch.Generator().manual_seed(seed))
    if progress is not None:
        tensors = _reported(tensors, progress)
    belongings = Belongings(tokenizer, {UNNORM_KEY: statistics}, step=1000, released=True)
    write_checkpoint(directory, config, tensors, belongings, dtype, SHARD_BYTES)
    return Path(directory)


def _reported(
    tensors: Iterator[tuple[str, Tensor]], progress: Callable[[str], None]
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        progress(name)
        yield name, tensor
