"""OpenVLA and UniVLA as one graph: the prompt in one pass, then token after token, unrolled.

Keys and values stay inside the graph and every weight is stored once, so an engine sees an ordinary graph that is run
once a look. Same arithmetic as `qvla_offline.checkpoints.openvla` and `.univla` on one observation.
"""

from __future__ import annotations

import numpy as np
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.model import STOP_TOKEN_ID
from qvla_offline.checkpoints.univla import LATENT_TOKENS, NORM_FLOOR, POOL_HEADS, SAMPLING
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.inputs import MAX_PROMPT_TOKENS, embed, emit_patches, graph_inputs, to_float32
from qvla_offline.export.llama import Decoder
from qvla_offline.export.modules import attention, linear, slice_axis, split_heads, vector
from qvla_offline.export.weights import Weights

HEAD = "language_model.lm_head"
MLP_RATIO = 4


def emit_openvla(graph: GraphBuilder, weights: Weights, config: PolicyConfig) -> None:
    """Output: `action_tokens` int64 [1, A], each the likeliest after those before."""
    decoder, sequence = _prefix(graph, weights, config)
    count = config.decoding.action_dim
    hidden, tokens = decoder(sequence, wanted=(-1, None)), []
    for index in range(count):
        logits = linear(graph, weights, HEAD, hidden)
        tokens.append(graph.op("ArgMax", logits, axis=-1, keepdims=0))
        if index < count - 1:
            hidden = decoder(embed(graph, weights, tokens[-1]))
    graph.output(graph.op("Concat", *tokens, axis=1), "action_tokens", np.int64, [1, count])


def emit_univla(graph: GraphBuilder, weights: Weights, config: PolicyConfig) -> None:
    """Input besides the others: `sampling_noise` float32 [1, 4, top_k]: Gumbel noise, or zeros for the likeliest token.

    Outputs: `actions` float32 [1, K, A], normalised, and `latent_tokens` int64 [1, 4].
    """
    decoding = config.decoding
    decoder, sequence = _prefix(graph, weights, config)
    top_k = min(SAMPLING.top_k, config.text.vocab_size)
    noise = graph.input("sampling_noise", np.float32, [1, LATENT_TOKENS, top_k])
    seen = decoder(sequence)
    visual = slice_axis(graph, seen, 1, 0, config.num_patches)
    latent, tokens = [slice_axis(graph, seen, 1, -1, None)], []
    for index in range(LATENT_TOKENS):
        logits = to_float32(graph, linear(graph, weights, HEAD, latent[-1]))
        tokens.append(
            _draw(graph, logits, slice_axis(graph, noise, 1, index, index + 1), config.text.vocab_size, top_k)
        )
        if index < LATENT_TOKENS - 1:
            latent.append(decoder(embed(graph, weights, tokens[-1])))
    pool = "action_decoder.latent_action_pool"
    start = _pool(graph, weights, decoding.pool_width, "action_decoder.visual_pool", visual, None)
    pooled = _pool(graph, weights, decoding.pool_width, pool, graph.op("Concat", *latent, axis=1), start)
    actions = graph.op("Tanh", linear(graph, weights, "action_decoder.proj.0", pooled))
    shape = [1, decoding.chunk_length, decoding.action_dim]
    actions = graph.op("Reshape", actions, graph.constant(shape))
    graph.output(to_float32(graph, actions), "actions", np.float32, shape)
    graph.output(graph.op("Concat", *tokens, axis=1), "latent_tokens", np.int64, [1, LATENT_TOKENS])


def _prefix(graph: GraphBuilder, weights: Weights, config: PolicyConfig) -> tuple[Decoder, str]:
    """The decoder and its first tokens [1, patches + L, D]: [BOS][patches][prompt rest]."""
    pixels, ids = graph_inputs(graph, config)
    patches = emit_patches(graph, weights, config, pixels)
    prompt = embed(graph, weights, ids)
    first, rest = slice_axis(graph, prompt, 1, 0, 1), slice_axis(graph, prompt, 1, 1, None)
    longest = config.num_patches + MAX_PROMPT_TOKENS + max(config.decoding.action_dim, LATENT_TOKENS)
    return Decoder(graph, weights, config.text, longest, causal=True), graph.op("Concat", first, patches, rest, axis=1)


def _draw(graph: GraphBuilder, logits: str, noise: str, vocab_size: int, top_k: int) -> str:
    """See `qvla_offline.checkpoints.univla.choose_token`: logits and noise [1, 1, ...] -> int64 [1, 1]."""
    with graph.scope("draw"):
        never = graph.constant(np.full((1, 1, 1), -np.inf), np.float32)
        parts = [slice_axis(graph, logits, 2, 0, STOP_TOKEN_ID), never]
        parts.append(slice_axis(graph, logits, 2, STOP_TOKEN_ID + 1, vocab_size))
        best, ids = graph.ops("TopK", graph.op("Concat", *parts, axis=2), graph.constant([top_k]), count=2, axis=-1)
        best = graph.op("Mul", best, graph.constant(1.0 / SAMPLING.temperature, np.float32))
        scores = graph.op("LogSoftmax", best, axis=-1)
        earlier = graph.constant(np.triu(np.ones((top_k, top_k)), 1), np.float32)  # sums of the likelier ones
        before = graph.op("MatMul", graph.op("Exp", scores), earlier)
        kept = graph.op("Less", before, graph.constant(SAMPLING.top_p, np.float32))
        hidden = graph.constant(-np.inf, np.float32)
        noisy = graph.op("Where", kept, graph.op("Add", scores, noise), hidden)
        place = graph.op("ArgMax", noisy, axis=-1, keepdims=1)
        return graph.op("Squeeze", graph.op("GatherElements", ids, place, axis=-1), graph.constant([2]))


def _pool(graph: GraphBuilder, weights: Weights, width: int, module: str, x: str, start: str | None) -> str:
    """Hidden states [1, T, D] -> one vector [1, 1, width]; see `qvla_offline.checkpoints.univla.Pool`."""
    head_dim, attn = width // POOL_HEADS, f"{module}.attn"
    with graph.scope(module):
        latents = graph.op("Reshape", vector(graph, weights, f"{module}.latents"), graph.constant([1, 1, width]))
        latents = latents if start is None else graph.op("Add", latents, start)
    projected = linear(graph, weights, f"{module}.projection", x)
    query = linear(graph, weights, f"{attn}.q", latents)
    both = linear(graph, weights, f"{attn}.kv", projected)
    with graph.scope(attn):
        parts = graph.ops("Split", both, graph.constant([width] * 2), count=2, axis=-1)
        query, key, value = (split_heads(graph, part, POOL_HEADS, head_dim, 1) for part in (query, *parts))
        mixed = attention(graph, query, key, value, head_dim, width, 1)
    latents = _add_norm(graph, weights, f"{module}.attn_norm", latents, linear(graph, weights, f"{attn}.proj", mixed))
    gated = linear(graph, weights, f"{module}.mlp.0.project", latents)
    with graph.scope(f"{module}.mlp"):
        value, gate = graph.ops("Split", gated, graph.constant([MLP_RATIO * width] * 2), count=2, axis=-1)
        hidden = graph.op("Mul", value, graph.op("Mul", gate, graph.op("Sigmoid", gate)))
    return _add_norm(graph, weights, f"{module}.mlp_norm", latents, linear(graph, weights, f"{module}.mlp.1", hidden))


def _add_norm(graph: GraphBuilder, weights: Weights, module: str, x: str, y: str) -> str:
    """x + y over its root mean square (in float32, not below NORM_FLOOR), times the gain."""
    with graph.scope(module):
        wide = to_float32(graph, graph.op("Add", x, y))
        mean = graph.op("ReduceMean", graph.op("Mul", wide, wide), graph.constant([-1]))
        root = graph.op("Max", graph.op("Sqrt", mean), graph.constant(NORM_FLOOR, np.float32))
        normed = graph.op("Div", wide, root)
        normed = normed if graph.compute == np.float32 else graph.op("Cast", normed, to=graph.onnx_compute)
        return graph.op("Mul", normed, vector(graph, weights, f"{module}.g"))
