"""The Llama decoder under transformers' parameter names.

It attends in both directions or only backwards.

OpenVLA-OFT runs its decoder bidirectionally (its fork of transformers drops the causal flag) and
never executes `lm_head`; OpenVLA and UniVLA run it causally, a token at a time, with a cache of
keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.checkpoints.config import TextConfig


@dataclass
class Cache:
    """Keys and values [B, kv heads, T, head_dim] of the tokens seen so far, by layer.

    `LlamaModel` appends to it.
    """

    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return self.layers[0][0].shape[2] if self.layers else 0

    def extend(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Appends to layer `index`; returns all of its keys and values."""
        if index == len(self.layers):
            self.layers.append((key, value))
        else:
            seen_key, seen_value = self.layers[index]
            self.layers[index] = (
                torch.cat([seen_key, key], dim=2),
                torch.cat([seen_value, value], dim=2),
            )
        return self.layers[index]


@dataclass(frozen=True)
class Sight:
    """What a token may attend to: `mask` bool [B or 1, 1, T, seen tokens], None for all; and the
    cache, if any.
    """

    mask: Tensor | None = None
    cache: Cache | None = None


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32, cast back before the gain, as Llama does."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


class SelfAttention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], sight: Sight, layer: int
    ) -> Tensor:
        batch, tokens, _ = x.shape
        query = rotate(
            self.q_proj(x).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2),
            rotation,
        )
        key = rotate(
            self.k_proj(x).view(batch, tokens, self.num_kv_heads, self.head_dim).transpose(1, 2),
            rotation,
        )
        value = self.v_proj(x).view(batch, tokens, self.num_kv_heads, self.head_dim).transpose(1, 2)
        if sight.cache is not None:
            key, value = sight.cache.extend(layer, key, value)
        repeats = self.num_heads // self.num_kv_heads
        if repeats > 1:
            key = key.repeat_interleave(repeats, dim=1)
            value = value.repeat_interleave(repeats, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=sight.mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class GatedMlp(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], sight: Sight, layer: int
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, sight, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    """Embeddings [B, T, D] -> hidden states [B, T, D] after the final norm.

    position_ids: [B, T] or [1, T]; sight: who sees whom; by default every token sees every token.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, embeddings: Tensor, position_ids: Tensor, sight: Sight = Sight()) -> Tensor:
        rotation = rotary_tables(
            position_ids, self.config.head_dim, self.config.rope_theta, embeddings.dtype
        )
        for index, layer in enumerate(self.layers):
            embeddings = layer(embeddings, rotation, sight, index)
        return self.norm(embeddings)

    def causal(self, embeddings: Tensor, cache: Cache | None = None) -> Tensor:
        """The next tokens of the sequence in `cache`, which they extend: each sees itself and what
        came before.

        Without a cache they are the whole sequence, and nothing is kept: a block may then be run
        alone (see blockwise).
        """
        start = 0 if cache is None else cache.length
        count = embeddings.shape[1]
        positions = torch.arange(start + count, device=embeddings.device)
        mask = positions[None, :] <= positions[start:, None]
        return self(embeddings, positions[None, start:], Sight(mask[None, None], cache))


class LlamaForCausalLM(nn.Module):
    """Gives the parts their names: `model` is the decoder, `lm_head` the vocabulary projection."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)


def rotary_tables(
    position_ids: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, T, head_dim] of the rotary position embedding, computed in float32."""
    exponents = (
        torch.arange(0, head_dim, 2, device=position_ids.device, dtype=torch.float32) / head_dim
    )
    angles = position_ids[:, None, :, None].float() / theta**exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Applies the rotary embedding to x [B, heads, T, head_dim]; halves are paired as in Llama."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
