"""The bidirectional Llama decoder of `qvla_offline.checkpoints.llama` as ONNX nodes, for one sequence of any length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from qvla_offline.checkpoints.config import TextConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.modules import attention, linear, slice_axis, split_heads, vector
from qvla_offline.export.weights import Weights

PREFIX = "language_model.model"


class Rotation(NamedTuple):
    """Cosine and signed sine [T, head_dim] of the rotary embedding; the first half of the sine is negated."""

    cosine: str
    sine: str


def emit_decoder(
    graph: GraphBuilder, weights: Weights, config: TextConfig, x: str, max_tokens: int, wanted: tuple[int, int]
) -> str:
    """Embeddings [1, T, D], T <= max_tokens -> hidden states [1, stop - start, D] of the wanted positions, normed.

    wanted: (start, stop), negative, counted from the end. Only the last layer's keys and values need the other
    positions, so its queries and its MLP skip them: the result is the same.
    """
    rotation = _rotation(graph, config, x, max_tokens)
    for index in range(config.num_hidden_layers):
        last = index == config.num_hidden_layers - 1
        x = _layer(graph, weights, config, f"{PREFIX}.layers.{index}", x, rotation, wanted if last else None)
    return _rms_norm(graph, weights, config, f"{PREFIX}.norm", x)


def rotary_tables(head_dim: int, theta: float, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 cosine and signed sine [max_tokens, head_dim]."""
    periods = np.float32(theta) ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    angles = np.arange(max_tokens, dtype=np.float32)[:, None] / periods
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([cosine, cosine], axis=1), np.concatenate([-sine, sine], axis=1)


def _rotation(graph: GraphBuilder, config: TextConfig, x: str, max_tokens: int) -> Rotation:
    with graph.scope(f"{PREFIX}.rotary"):
        length = graph.op("Shape", x, start=1, end=2)
        start, axis = graph.constant([0]), graph.constant([0])
        tables = rotary_tables(config.head_dim, config.rope_theta, max_tokens)
        names = (
            graph.tensor(f"{PREFIX}.rotary.{n}", t.astype(graph.compute))
            for n, t in zip(("cosine", "sine"), tables, strict=True)
        )
        return Rotation(*(graph.op("Slice", name, start, length, axis) for name in names))


def _rotate(graph: GraphBuilder, x: str, rotation: Rotation, head_dim: int) -> str:
    first, second = graph.ops("Split", x, graph.constant([head_dim // 2] * 2), count=2, axis=-1)
    swapped = graph.op("Concat", second, first, axis=-1)
    return graph.op("Add", graph.op("Mul", x, rotation.cosine), graph.op("Mul", swapped, rotation.sine))


def _rms_norm(graph: GraphBuilder, weights: Weights, config: TextConfig, module: str, x: str) -> str:
    """Mean square in float32 whatever the compute dtype, as Llama does; the gain comes after the cast back."""
    with graph.scope(module):
        narrow = graph.compute != np.float32
        wide = graph.op("Cast", x, to=1) if narrow else x
        mean = graph.op("ReduceMean", graph.op("Pow", wide, graph.constant(2.0, np.float32)), graph.constant([-1]))
        root = graph.op("Sqrt", graph.op("Add", mean, graph.constant(config.rms_norm_eps, np.float32)))
        normed = graph.op("Div", wide, root)
        normed = graph.op("Cast", normed, to=graph.onnx_compute) if narrow else normed
        return graph.op("Mul", normed, vector(graph, weights, f"{module}.weight"))


def _layer(
    graph: GraphBuilder,
    weights: Weights,
    config: TextConfig,
    prefix: str,
    x: str,
    rotation: Rotation,
    wanted: tuple[int, int] | None,
) -> str:
    heads, kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    normed = _rms_norm(graph, weights, config, f"{prefix}.input_layernorm", x)
    attn = f"{prefix}.self_attn"
    asking, query_rotation = normed, rotation
    with graph.scope(attn):
        if wanted is not None:
            x, asking = slice_axis(graph, x, 1, *wanted), slice_axis(graph, normed, 1, *wanted)
            query_rotation = Rotation(*(slice_axis(graph, table, 0, *wanted) for table in rotation))
    query = linear(graph, weights, f"{attn}.q_proj", asking)
    key, value = (linear(graph, weights, f"{attn}.{name}_proj", normed) for name in "kv")
    with graph.scope(attn):
        query = _rotate(graph, split_heads(graph, query, heads, head_dim, 1), query_rotation, head_dim)
        key = _rotate(graph, split_heads(graph, key, kv_heads, head_dim, 1), rotation, head_dim)
        value = split_heads(graph, value, kv_heads, head_dim, 1)
        if heads != kv_heads:  # consecutive query heads share one key head
            shared = np.repeat(np.arange(kv_heads), heads // kv_heads)
            key, value = (graph.op("Gather", part, graph.constant(shared), axis=1) for part in (key, value))
        mixed = attention(graph, query, key, value, head_dim, heads * head_dim, 1)
    mixed = linear(graph, weights, f"{attn}.o_proj", mixed)
    with graph.scope(attn):
        x = graph.op("Add", x, mixed)

    normed = _rms_norm(graph, weights, config, f"{prefix}.post_attention_layernorm", x)
    gate, up = (linear(graph, weights, f"{prefix}.mlp.{name}_proj", normed) for name in ("gate", "up"))
    with graph.scope(f"{prefix}.mlp"):
        hidden = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
    down = linear(graph, weights, f"{prefix}.mlp.down_proj", hidden)
    with graph.scope(f"{prefix}.mlp"):
        return graph.op("Add", x, down)
