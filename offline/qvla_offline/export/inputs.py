"""Images and prompt as decoder tokens, with which the graphs of all families begin."""

from __future__ import annotations

import numpy as np

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.heads import emit_mlp
from qvla_offline.export.llama import PREFIX
from qvla_offline.export.modules import slice_axis
from qvla_offline.export.vit import emit_vit
from qvla_offline.export.weights import CheckpointWeights

VIT_NAMES = ("featurizer", "fused_featurizer")
_TOO_LARGE = "train it again with smaller embeddings: their table is float16 in every bundle"


def graph_inputs(graph: GraphBuilder, config: PolicyConfig) -> tuple[str, str]:
    """Declares `pixel_values` and `input_ids`; returns both, the pixels in the compute dtype."""
    size = config.vision[0].image_size
    channels = 3 * len(config.vision) * config.decoding.num_images
    pixels = graph.input("pixel_values", np.float32, [1, channels, size, size])
    return to_compute(graph, pixels), graph.input("input_ids", np.int64, [1, "prompt_tokens"])


def to_compute(graph: GraphBuilder, x: str) -> str:
    """float32 -> the compute dtype."""
    return x if graph.compute == np.float32 else graph.op("Cast", x, to=graph.onnx_compute)


def to_float32(graph: GraphBuilder, x: str) -> str:
    """The compute dtype -> float32."""
    return x if graph.compute == np.float32 else graph.op("Cast", x, to=1)


def emit_patches(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: PolicyConfig,
    pixels: str,
    language: str | None = None,
) -> str:
    """[1, 3 * ViTs * images, S, S] -> projected patches [1, images * patches, D], image after
    image.

    language: mean embedding of the prompt [1, 1, D], for FiLM.
    """
    count = config.decoding.num_images
    vits = len(config.vision)
    size = config.vision[0].image_size
    views = graph.op("Reshape", pixels, graph.constant([count, 3 * vits, size, size]))
    features = []
    for index, (name, vit) in enumerate(zip(VIT_NAMES, config.vision, strict=False)):
        images = views if vits == 1 else slice_axis(graph, views, 1, 3 * index, 3 * index + 3)
        features.append(
            emit_vit(graph, weights, vit, f"vision_backbone.{name}", images, count, language)
        )
    joined = features[0] if vits == 1 else graph.op("Concat", *features, axis=-1)
    joined = graph.op(
        "Reshape", joined, graph.constant([1, count * config.num_patches, config.vision_width])
    )
    return emit_mlp(graph, weights, "projector", joined)


def embed(graph: GraphBuilder, weights: CheckpointWeights, ids: str) -> str:
    """Embeddings [1, L, D] of ids int64 [1, L], from one float16 table."""
    name = f"{PREFIX}.embed_tokens"
    table = f"{name}.weight.float16"
    with graph.scope(name):
        if table not in graph.stored_bytes:
            graph.tensor(table, weights.array(f"{name}.weight", np.float16, _TOO_LARGE))
        rows = graph.op("Gather", table, ids, axis=0)
        return (
            rows if graph.compute == np.float16 else graph.op("Cast", rows, to=graph.onnx_compute)
        )
