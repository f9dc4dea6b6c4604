"""Defines the bundled policy's size and starting weights.

It is OpenVLA-OFT in every part, with about a thousandth of its weights.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from qvla_offline.checkpoints.backbones import VisionConfig
from qvla_offline.checkpoints.config import DecodingConfig, PolicyConfig, TextConfig
from qvla_offline.checkpoints.heads import L1Head
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.tokenizer import pad_token_id, padded_vocabulary

IMAGE_SIZE = 112


def reference_config(tokenizer: Tokenizer) -> PolicyConfig:
    """The config: two ViTs of width 128, and a decoder of width 192 and four layers.

    Four blocks of each ViT are executed.
    """
    dino = VisionConfig(
        "vit_large_patch14_reg4_dinov2.lvd142m",
        image_size=IMAGE_SIZE,
        patch_size=16,
        embed_dim=128,
        depth=5,
        num_heads=4,
        mlp_hidden=512,
        class_token=True,
        reg_tokens=4,
        layer_scale=True,
        attention_pool=False,
    )
    siglip = replace(
        dino,
        timm_id="vit_so400m_patch14_siglip_224",
        class_token=False,
        reg_tokens=0,
        layer_scale=False,
    )
    text = TextConfig(
        vocab_size=padded_vocabulary(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=pad_token_id(tokenizer),
    )
    backbone = "dinosiglip-vit-so-224px"
    return PolicyConfig(
        backbone, "resize-naive", (dino, siglip), text, DecodingConfig(), resize_size=IMAGE_SIZE
    )


@torch.no_grad()
def initialize(model: OpenVLAOFT) -> None:
    """Draws the starting weights for training, from torch's global generator.

    Layers are Xavier; those that write to a residual stream are scaled down by the depth. Positions
    of patches start as 2-D sines, so that a small model need not learn from few images where things
    are.
    """
    config = model.config
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if name.endswith(("attn.proj", "mlp.fc2")):
            module.weight.mul_((2 * config.vision[0].depth) ** -0.5)
        if name.endswith(("o_proj", "down_proj")):
            module.weight.mul_((2 * config.text.num_hidden_layers) ** -0.5)
    nn.init.normal_(model.language_model.model.embed_tokens.weight, std=0.5)
    for vit in (model.vision_backbone.featurizer, model.vision_backbone.fused_featurizer):
        side = vit.config.image_size // vit.config.patch_size
        vit.pos_embed.copy_(0.5 * sine_positions(side, vit.config.embed_dim))
        for token in ("cls_token", "reg_token"):
            if hasattr(vit, token):
                nn.init.normal_(getattr(vit, token), std=0.1)
    output_layer(model).weight.mul_(0.1)


def output_layer(model: OpenVLAOFT) -> nn.Linear:
    """Returns the last layer of the bundled policy's L1 head; its rows are action numbers."""
    assert isinstance(model.action_head, L1Head)
    return model.action_head.model.fc2


def sine_positions(side: int, width: int) -> Tensor:
    """Returns ViT's fixed 2-D embedding [1, side^2, width].

    It holds sines and cosines of the column, then of the row.
    """
    frequencies = math.pi * torch.logspace(0, math.log10(side), width // 4) / side
    angles = (torch.arange(side, dtype=torch.float32)[:, None] + 0.5) * frequencies
    one_axis = torch.cat([angles.sin(), angles.cos()], dim=-1)
    columns = one_axis[None].expand(side, -1, -1)
    rows = one_axis[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, side * side, width)
