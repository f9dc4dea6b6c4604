"""UniVLA as one graph: the arithmetic of `qvla_offline.checkpoints.univla` on one observation."""

from __future__ import annotations

import numpy as np

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.model import STOP_TOKEN_ID
from qvla_offline.checkpoints.univla import (
    LATENT_TOKENS,
    NORM_FLOOR,
    POOL_HEADS,
    SAMPLING,
    visual_places,
)
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.inputs import to_float32
from qvla_offline.export.modules import attention, linear, slice_axis, split_heads, vector
from qvla_offline.export.options import ExportOptions
from qvla_offline.export.tokens import HEAD, decode_tokens
from qvla_offline.export.weights import CheckpointWeights

STOP_TOKEN = "stop_token"  # which of the vocabulary it is
MLP_RATIO = 4


def emit_univla(
    graph: GraphBuilder, weights: CheckpointWeights, config: PolicyConfig, options: ExportOptions
) -> None:
    """Input besides the others: `sampling_noise` float32 [1, 4, top_k]: Gumbel noise, or zeros for
    the likeliest token.

    Outputs: `actions` float32 [1, K, A], normalised, and `latent_tokens` int64 [1, 4]. guessed:
    input `guess` int64 [1, 3] too; the actions are those of the guess.
    """
    decoding = config.decoding
    vocab_size = config.text.vocab_size
    top_k = min(SAMPLING.top_k, vocab_size)
    noise = graph.input("sampling_noise", np.float32, [1, LATENT_TOKENS, top_k])

    def drawn(hidden: str, index: int | None) -> str:
        logits = to_float32(graph, linear(graph, weights, HEAD, hidden))
        here = noise if index is None else slice_axis(graph, noise, 1, index, index + 1)
        return _draw(graph, logits, here, vocab_size, top_k)

    tokens, hidden = decode_tokens(
        graph, weights, config, LATENT_TOKENS, drawn, options.guessed, only_last=False
    )
    visual = slice_axis(graph, hidden, 1, 0, visual_places(config))
    latent = slice_axis(graph, hidden, 1, -LATENT_TOKENS, None)
    start = _pool(graph, weights, decoding.pool_width, "action_decoder.visual_pool", visual, None)
    pooled = _pool(
        graph, weights, decoding.pool_width, "action_decoder.latent_action_pool", latent, start
    )
    actions = graph.op("Tanh", linear(graph, weights, "action_decoder.proj.0", pooled))
    shape = [1, decoding.chunk_length, decoding.action_dim]
    actions = graph.op("Reshape", actions, graph.constant(shape))
    graph.output(to_float32(graph, actions), "actions", np.float32, shape)
    graph.output(tokens, "latent_tokens", np.int64, [1, LATENT_TOKENS])


def _draw(graph: GraphBuilder, logits: str, noise: str, vocab_size: int, top_k: int) -> str:
    """See `qvla_offline.checkpoints.univla.choose_token`: logits and noise [1, n, ...] -> int64 [1,
    n].
    """
    with graph.scope("draw"):
        lowest = graph.constant(-np.inf, np.float32)
        if STOP_TOKEN not in graph.stored_bytes:
            graph.tensor(STOP_TOKEN, np.arange(vocab_size) == STOP_TOKEN_ID)
        logits = graph.op("Where", STOP_TOKEN, lowest, logits)
        best, ids = graph.ops("TopK", logits, graph.constant([top_k]), count=2, axis=-1)
        best = graph.op("Mul", best, graph.constant(1.0 / SAMPLING.temperature, np.float32))
        scores = graph.op("LogSoftmax", best, axis=-1)
        before = graph.op(
            "CumSum", graph.op("Exp", scores), graph.constant(2, np.int64), exclusive=1
        )
        kept = graph.op("Less", before, graph.constant(SAMPLING.top_p, np.float32))
        noisy = graph.op("Where", kept, graph.op("Add", scores, noise), lowest)
        place = graph.op("ArgMax", noisy, axis=-1, keepdims=1)
        return graph.op(
            "Squeeze", graph.op("GatherElements", ids, place, axis=-1), graph.constant([2])
        )


def _pool(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    width: int,
    module: str,
    x: str,
    start: str | None,
) -> str:
    """Hidden states [1, T, D] -> one vector [1, 1, width].

    See `qvla_offline.checkpoints.univla.Pool`.
    """
    head_dim = width // POOL_HEADS
    attn = f"{module}.attn"
    with graph.scope(module):
        latents = graph.op(
            "Reshape", vector(graph, weights, f"{module}.latents"), graph.constant([1, 1, width])
        )
        latents = latents if start is None else graph.op("Add", latents, start)
    projected = linear(graph, weights, f"{module}.projection", x)
    query = linear(graph, weights, f"{attn}.q", latents)
    both = linear(graph, weights, f"{attn}.kv", projected)
    with graph.scope(attn):
        parts = graph.ops("Split", both, graph.constant([width] * 2), count=2, axis=-1)
        query, key, value = (
            split_heads(graph, part, POOL_HEADS, head_dim, 1) for part in (query, *parts)
        )
        mixed = attention(graph, query, key, value, head_dim, width, 1)
    latents = _add_norm(
        graph,
        weights,
        f"{module}.attn_norm",
        latents,
        linear(graph, weights, f"{attn}.proj", mixed),
    )
    gated = linear(graph, weights, f"{module}.mlp.0.project", latents)
    with graph.scope(f"{module}.mlp"):
        value, gate = graph.ops(
            "Split", gated, graph.constant([MLP_RATIO * width] * 2), count=2, axis=-1
        )
        hidden = graph.op("Mul", value, graph.op("Mul", gate, graph.op("Sigmoid", gate)))
    return _add_norm(
        graph,
        weights,
        f"{module}.mlp_norm",
        latents,
        linear(graph, weights, f"{module}.mlp.1", hidden),
    )


def _add_norm(graph: GraphBuilder, weights: CheckpointWeights, module: str, x: str, y: str) -> str:
    """x + y over its root mean square (in float32, not below NORM_FLOOR), times the gain."""
    with graph.scope(module):
        wide = to_float32(graph, graph.op("Add", x, y))
        mean = graph.op("ReduceMean", graph.op("Mul", wide, wide), graph.constant([-1]))
        root = graph.op("Max", graph.op("Sqrt", mean), graph.constant(NORM_FLOOR, np.float32))
        normed = graph.op("Div", wide, root)
        normed = (
            normed
            if graph.compute == np.float32
            else graph.op("Cast", normed, to=graph.onnx_compute)
        )
        return graph.op("Mul", normed, vector(graph, weights, f"{module}.g"))
