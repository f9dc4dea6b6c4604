"""Projectors and OpenVLA-OFT's action heads as ONNX nodes.

No quantization targets: their weights are float16.
"""

from __future__ import annotations

from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.modules import gelu, layer_norm, linear
from qvla_offline.export.weights import CheckpointWeights

LAYER_NORM_EPSILON = 1e-5  # torch's default, which the head was trained with
NUM_RESIDUAL_BLOCKS = 2


def emit_mlp(graph: GraphBuilder, weights: CheckpointWeights, module: str, x: str) -> str:
    """`projector` and the projectors of numbers: fc1, fc2 (and fc3 after fused backbones) with GELU
    between.
    """
    names = [name for name in ("fc1", "fc2", "fc3") if f"{module}.{name}.weight" in weights.tensors]
    for index, name in enumerate(names):
        if index:
            with graph.scope(module):
                x = gelu(graph, x)
        x = linear(graph, weights, f"{module}.{name}", x)
    return x


def emit_residual_mlp(graph: GraphBuilder, weights: CheckpointWeights, module: str, x: str) -> str:
    """The action heads' network: hidden states of each step [1, K, A * D] -> [1, K, A]."""
    with graph.scope(module):
        x = layer_norm(graph, weights, f"{module}.layer_norm1", x, LAYER_NORM_EPSILON)
    x = linear(graph, weights, f"{module}.fc1", x)
    with graph.scope(module):
        x = graph.op("Relu", x)
    for index in range(NUM_RESIDUAL_BLOCKS):
        block = f"{module}.mlp_resnet_blocks.{index}.ffn"
        with graph.scope(block):
            y = layer_norm(graph, weights, f"{block}.0", x, LAYER_NORM_EPSILON)
        y = linear(graph, weights, f"{block}.1", y)
        with graph.scope(block):
            x = graph.op("Add", x, graph.op("Relu", y))
    with graph.scope(module):
        x = layer_norm(graph, weights, f"{module}.layer_norm2", x, LAYER_NORM_EPSILON)
    return linear(graph, weights, f"{module}.fc2", x)
