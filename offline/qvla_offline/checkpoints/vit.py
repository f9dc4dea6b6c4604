"""OpenVLA's vision transformers, under timm's parameter names.

They are DINOv2 with registers and SigLIP.

timm itself is not needed. As OpenVLA does, the output is the residual stream after the
second-to-last block, without the final norm and without prefix tokens. The last block, the norm and
SigLIP's pooling head are held because a real checkpoint holds them. They have no part in the
result: timm runs the last block and drops its output, here it is run only within `last_blocks_run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.checkpoints.backbones import VisionConfig


class LayerScale(nn.Module):
    """A learned gain per channel. OpenVLA stores timm's `gamma` as `scale_factor`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Attention(nn.Module):
    """Self-attention with one fused qkv projection: rows of q, then k, then v, each grouped by
    head.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each scaled per channel where the family has LayerScale.

    With FiLM, the mean embedding of the prompt scales and shifts the channels between the two.
    """

    def __init__(self, config: VisionConfig, film_width: int | None = None) -> None:
        super().__init__()
        width = config.embed_dim
        eps = config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, config.num_heads)
        self.ls1 = LayerScale(width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, config.mlp_hidden)
        self.ls2 = LayerScale(width) if config.layer_scale else nn.Identity()
        if film_width is not None:
            self.scale = nn.Linear(film_width, width)
            self.shift = nn.Linear(film_width, width)

    def forward(self, x: Tensor, language: Tensor | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        if language is not None:
            x = x * (1 + self.scale(language)[:, None]) + self.shift(language)[:, None]
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class AttentionPool(nn.Module):
    """SigLIP's pooling head; parameters only, since OpenVLA reads patches and never pools."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(width, config.mlp_hidden)


class VisionTransformer(nn.Module):
    """Normalised images [B, 3, S, S] -> patch features [B, (S / patch)^2, width] after block n-2.

    film_width: width of the language embedding [B, D] that `forward` then takes too; None without
    FiLM.
    """

    def __init__(self, config: VisionConfig, film_width: int | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.reg_tokens:
            self.reg_token = nn.Parameter(torch.zeros(1, config.reg_tokens, width))
        self.pos_embed = nn.Parameter(
            torch.zeros(1, config.num_patches + config.class_position, width)
        )
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config, film_width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        if config.attention_pool:
            self.attn_pool = AttentionPool(config)
        self.runs_last_block = False

    def forward(self, images: Tensor, language: Tensor | None = None) -> Tensor:
        x = self.patch_embed(images)
        prefix = [getattr(self, name) for name in ("cls_token", "reg_token") if hasattr(self, name)]
        if self.config.class_position:
            x = (
                torch.cat([*(token.expand(len(x), -1, -1) for token in prefix), x], dim=1)
                + self.pos_embed
            )
        else:
            x = torch.cat(
                [*(token.expand(len(x), -1, -1) for token in prefix), x + self.pos_embed], dim=1
            )
        for block in self.blocks[:-1]:
            x = block(x, language)
        if self.runs_last_block:
            self.blocks[-1](x, language)
        return x[:, self.config.num_prefix_tokens :]


@contextmanager
def last_blocks_run(model: nn.Module) -> Iterator[None]:
    """Lets every ViT in `model` run its last block too, as timm does, and drop what it gives."""
    vits = [module for module in model.modules() if isinstance(module, VisionTransformer)]
    try:
        for vit in vits:
            vit.runs_last_block = True
        yield
    finally:
        for vit in vits:
            vit.runs_last_block = False
