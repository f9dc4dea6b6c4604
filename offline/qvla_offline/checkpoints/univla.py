"""UniVLA's network: a small decoder turns four latent action tokens into a chunk.

The decoder reads the hidden states of these tokens.

Source: `predict_latent_action` in UniVLA's `modeling_prismatic.py`, `transformer_utils.py`, and the
LIBERO evaluation; parameter names are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.llama import Cache
from qvla_offline.checkpoints.model import STOP_TOKEN_ID, PolicyInputs
from qvla_offline.checkpoints.openvla import CausalModel

LATENT_TOKENS = 4
VISUAL_PLACES = 256  # that the released code reads, whatever the number of patches
POOL_HEADS = 8
NORM_FLOOR = 1e-8


@dataclass(frozen=True)
class LatentSampling:
    """The way in which the released evaluation draws a latent token.

    It is from the `top_k` likeliest, less the tail beyond `top_p`.
    """

    temperature: float = 0.75
    top_k: int = 50
    top_p: float = 0.9


SAMPLING = LatentSampling()


class GainNorm(nn.Module):
    """x over its root mean square, times a gain `g`; the root is not below 1e-8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return x / norm.clamp(min=NORM_FLOOR) * self.g


class PoolAttention(nn.Module):
    """One query row per latent, over keys and values of all inputs."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        batch, count, width = latents.shape
        heads = (batch, -1, self.num_heads, width // self.num_heads)
        query = self.q(latents).reshape(heads).transpose(1, 2)
        key, value = (part.reshape(heads).transpose(1, 2) for part in self.kv(x).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class GatedProjection(nn.Module):
    """`project` makes a value and a gate, each [..., outputs]; out comes value * SiLU(gate)."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(num_inputs, 2 * num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.project(x).chunk(2, dim=-1)
        return value * F.silu(gate)


class Pool(nn.Module):
    """Hidden states [B, T, D] -> one vector [B, width].

    `start` [B, width] is added to the learned latent.
    """

    def __init__(self, hidden_size: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, width))
        self.projection = nn.Linear(hidden_size, width)
        self.attn_norm = GainNorm(width)
        self.attn = PoolAttention(width, num_heads)
        self.mlp_norm = GainNorm(width)
        self.mlp = nn.Sequential(GatedProjection(width, 4 * width), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        latents = self.latents.expand(len(x), -1, -1)
        if start is not None:
            latents = latents + start[:, None]
        latents = self.attn_norm(latents + self.attn(latents, self.projection(x)))
        return self.mlp_norm(latents + self.mlp(latents))[:, 0]


class ActionDecoder(nn.Module):
    """Hidden states of the latent tokens [B, 4, D] and of the image [B, P, D] -> normalised actions
    [B, K, A].
    """

    def __init__(
        self, hidden_size: int, width: int, num_heads: int, chunk_length: int, action_dim: int
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.latent_action_pool = Pool(hidden_size, width, num_heads)
        self.visual_pool = Pool(hidden_size, width, num_heads)
        self.proj = nn.Sequential(nn.Linear(width, chunk_length * action_dim), nn.Tanh())

    def forward(self, latent: Tensor, visual: Tensor) -> Tensor:
        """In the dtype of its own weights, which the released evaluation leaves in float32."""
        dtype = next(self.proj.parameters()).dtype
        latent, visual = (hidden.to(dtype) for hidden in (latent, visual))
        pooled = self.latent_action_pool(latent[:, -LATENT_TOKENS:], start=self.visual_pool(visual))
        return self.proj(pooled).reshape(len(pooled), -1, self.action_dim)


class UniVLA(CausalModel):
    """`forward` takes the likeliest latent tokens.

    The released evaluation draws them, see `generate`.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        decoding = config.decoding
        sizes = (config.text.hidden_size, decoding.pool_width, POOL_HEADS)
        self.action_decoder = ActionDecoder(*sizes, decoding.chunk_length, decoding.action_dim)

    def forward(self, inputs: PolicyInputs) -> Tensor:
        return self.smooth_actions(self.prepare(inputs))

    def prepare(self, inputs: PolicyInputs) -> PolicyInputs:
        return (
            inputs if inputs.chosen is not None else replace(inputs, chosen=self.generate(inputs))
        )

    def smooth_actions(self, inputs: PolicyInputs) -> Tensor:
        """Normalised actions [B, K, A], given the latent tokens.

        As in the released evaluation, the decoder reads the last prompt token and the first three
        latent ones, and for the image the places from BOS to the last patch but one.
        """
        tokens = self.choices(inputs)
        sequence = torch.cat([self.prefix(inputs), self.embed(tokens[:, :-1])], dim=1)
        hidden = self.language_model.model.causal(sequence)
        return self.action_decoder(
            hidden[:, -LATENT_TOKENS:], hidden[:, : visual_places(self.config)]
        )

    @torch.no_grad()
    def generate(self, inputs: PolicyInputs, gumbel: Tensor | None = None) -> Tensor:
        """Latent tokens int64 [B, 4], one after the other.

        gumbel: [B, 4, top_k] standard Gumbel noise, with which they are drawn as `LatentSampling`
        says; None takes the likeliest ones.
        """
        cache = Cache()
        decoder = self.language_model.model
        embeddings = self.prefix(inputs)
        tokens = []
        for index in range(LATENT_TOKENS):
            logits = self.logits(decoder.causal(embeddings, cache)[:, -1])
            tokens.append(choose_token(logits, None if gumbel is None else gumbel[:, index]))
            embeddings = self.embed(tokens[-1])
        return torch.cat(tokens, dim=1)


def visual_places(config: PolicyConfig) -> int:
    """Counts the places, from BOS on, that stand for the image."""
    return min(VISUAL_PLACES, config.num_patches)


def choose_token(
    logits: Tensor, gumbel: Tensor | None, sampling: LatentSampling = SAMPLING
) -> Tensor:
    """int64 [B, 1] from logits [B, V]: the stop token never, others drawn from the likeliest (top
    k, then top p).

    A token drawn by its probability is the one whose log-probability plus Gumbel noise [B, top_k]
    is largest.
    """
    logits = logits.clone()
    logits[:, STOP_TOKEN_ID] = -torch.inf
    best, ids = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
    if gumbel is None:
        return ids[:, :1]
    scores = (best / sampling.temperature).log_softmax(-1)
    shares = scores.exp()
    kept = shares.cumsum(-1) - shares < sampling.top_p
    return ids.gather(1, torch.where(kept, scores + gumbel, -torch.inf).argmax(-1, keepdim=True))
