"""A ViT of `qvla_offline.checkpoints.vit` as ONNX nodes.

The blocks that OpenVLA never executes are left out.
"""

from __future__ import annotations

from qvla_offline.checkpoints.backbones import VisionConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.modules import (
    attention,
    gelu,
    layer_norm,
    linear,
    slice_axis,
    split_heads,
    vector,
)
from qvla_offline.export.weights import CheckpointWeights


def emit_vit(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: VisionConfig,
    prefix: str,
    images: str,
    count: int,
    language: str | None = None,
) -> str:
    """Normalised images [count, 3, S, S] -> patch features [count, patches, width] after the
    second-to-last block.

    language: mean embedding of the prompt [1, 1, D], for FiLM.
    """
    x = _embed_patches(graph, weights, config, f"{prefix}.patch_embed.proj", images, count)
    with graph.scope(prefix):
        positions = vector(graph, weights, f"{prefix}.pos_embed")
        if not config.class_position:
            x = graph.op("Add", x, positions)
        names = ["cls_token"] * config.class_token + ["reg_token"] * (config.reg_tokens > 0)
        if names:
            shape = graph.constant([count, 1, 1])
            tokens = [
                graph.op("Tile", vector(graph, weights, f"{prefix}.{name}"), shape)
                for name in names
            ]
            x = graph.op("Concat", *tokens, x, axis=1)
        if config.class_position:
            x = graph.op("Add", x, positions)
    for index in range(config.depth - 1):
        x = _block(graph, weights, config, f"{prefix}.blocks.{index}", x, count, language)
    if not config.num_prefix_tokens:
        return x
    with graph.scope(prefix):
        start = graph.constant([config.num_prefix_tokens])
        end = graph.constant([config.num_prefix_tokens + config.num_patches])
        return graph.op("Slice", x, start, end, graph.constant([1]))


def _embed_patches(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: VisionConfig,
    module: str,
    images: str,
    count: int,
) -> str:
    """The patch convolution as a matrix product: its kernel does not overlap, so each patch is a
    row of inputs.
    """
    side = config.image_size // config.patch_size
    patch = config.patch_size
    covered = side * patch
    with graph.scope(module):
        # the convolution leaves out what does not fill a patch, as at 384 pixels
        if covered < config.image_size:
            images = slice_axis(graph, slice_axis(graph, images, 2, 0, covered), 3, 0, covered)
        x = graph.op("Reshape", images, graph.constant([count, 3, side, patch, side, patch]))
        # the order of the flattened kernel: channel, row, column
        x = graph.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
        x = graph.op("Reshape", x, graph.constant([count, side * side, 3 * patch * patch]))
    return linear(graph, weights, module, x)


def _block(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: VisionConfig,
    prefix: str,
    x: str,
    count: int,
    language: str | None,
) -> str:
    width = config.embed_dim
    heads = config.num_heads

    def add(x: str, y: str, scale: str) -> str:
        with graph.scope(f"{prefix}.{scale}"):
            if config.layer_scale:
                y = graph.op("Mul", y, vector(graph, weights, f"{prefix}.{scale}.scale_factor"))
            return graph.op("Add", x, y)

    with graph.scope(f"{prefix}.norm1"):
        normed = layer_norm(graph, weights, f"{prefix}.norm1", x, config.layer_norm_eps)
    qkv = linear(graph, weights, f"{prefix}.attn.qkv", normed)
    with graph.scope(f"{prefix}.attn"):
        parts = graph.ops("Split", qkv, graph.constant([width] * 3), count=3, axis=-1)
        query, key, value = (
            split_heads(graph, part, heads, width // heads, count) for part in parts
        )
        mixed = attention(graph, query, key, value, width // heads, width, count)
    x = add(x, linear(graph, weights, f"{prefix}.attn.proj", mixed), "ls1")
    if language is not None:
        x = _modulate(graph, weights, prefix, x, language)

    with graph.scope(f"{prefix}.norm2"):
        normed = layer_norm(graph, weights, f"{prefix}.norm2", x, config.layer_norm_eps)
    hidden = linear(graph, weights, f"{prefix}.mlp.fc1", normed)
    with graph.scope(f"{prefix}.mlp"):
        hidden = gelu(graph, hidden)
    return add(x, linear(graph, weights, f"{prefix}.mlp.fc2", hidden), "ls2")


def _modulate(
    graph: GraphBuilder, weights: CheckpointWeights, prefix: str, x: str, language: str
) -> str:
    """FiLM: x (1 + scale(language)) + shift(language), the same for all tokens of all images."""
    scale, shift = (
        linear(graph, weights, f"{prefix}.{name}", language) for name in ("scale", "shift")
    )
    with graph.scope(f"{prefix}.film"):
        gain = graph.op("Add", scale, graph.constant(1.0))
        return graph.op("Add", graph.op("Mul", x, gain), shift)
