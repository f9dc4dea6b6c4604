"""The parts that ViT, decoder and heads share, as ONNX nodes.

Values are [B, T, C] unless stated otherwise.
"""

from __future__ import annotations

import numpy as np

from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.linear import multiply, store_linear
from qvla_offline.export.weights import CheckpointWeights


def linear(graph: GraphBuilder, weights: CheckpointWeights, module: str, x: str) -> str:
    """The linear layer `module` of the checkpoint, quantized as its gates say.

    Stored when it is first used.
    """
    if module not in graph.layers:
        bias = weights.bias(module, graph.compute)
        graph.layers[module] = store_linear(graph, module, weights.layer(module), bias)
    return multiply(graph, x, graph.layers[module])


def vector(graph: GraphBuilder, weights: CheckpointWeights, name: str) -> str:
    """A small tensor of the checkpoint (norm, bias, position embedding) in the compute dtype."""
    return (
        name
        if name in graph.stored_bytes
        else graph.tensor(name, weights.array(name, graph.compute))
    )


def layer_norm(
    graph: GraphBuilder, weights: CheckpointWeights, module: str, x: str, epsilon: float
) -> str:
    """LayerNorm over the last axis."""
    gain, bias = (vector(graph, weights, f"{module}.{part}") for part in ("weight", "bias"))
    return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=epsilon)


def gelu(graph: GraphBuilder, x: str) -> str:
    """The exact GELU, by the error function."""
    return graph.op("Gelu", x, approximate="none")


def split_heads(graph: GraphBuilder, x: str, num_heads: int, head_dim: int, batch: int) -> str:
    """[B, T, heads * head_dim] -> [B, heads, T, head_dim]."""
    x = graph.op("Reshape", x, graph.constant([batch, -1, num_heads, head_dim]))
    return graph.op("Transpose", x, perm=[0, 2, 1, 3])


def attention(
    graph: GraphBuilder,
    query: str,
    key: str,
    value: str,
    head_dim: int,
    width: int,
    batch: int,
    mask: str | None = None,
) -> str:
    """Softmax attention: query, key and value [B, heads, T, head_dim] -> [B, T, width].

    mask: what is added to the scores, [queries, keys], 0 or minus infinity; None where all tokens
    see all.
    """
    query = graph.op("Mul", query, graph.constant(head_dim**-0.5))
    scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 1, 3, 2]))
    if mask is not None:
        scores = graph.op("Add", scores, mask)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", mixed, graph.constant([batch, -1, width]))


def slice_axis(graph: GraphBuilder, x: str, axis: int, start: int, stop: int | None) -> str:
    """x[..., start:stop, ...] along `axis`; stop None means to the end."""
    end = np.iinfo(np.int64).max if stop is None else stop
    return graph.op(
        "Slice", x, graph.constant([start]), graph.constant([end]), graph.constant([axis])
    )
