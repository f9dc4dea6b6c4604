"""The whole OpenVLA-OFT policy as one graph: images, prompt and proprioception in, normalised actions out.

Same arithmetic as `qvla_offline.checkpoints.model.OpenVLAOFT` on one observation without padding.
"""

from __future__ import annotations

import numpy as np
from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.model import STOP_TOKEN_ID
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.heads import emit_l1_head, emit_mlp
from qvla_offline.export.llama import PREFIX, emit_decoder
from qvla_offline.export.modules import slice_axis
from qvla_offline.export.vit import emit_vit
from qvla_offline.export.weights import Weights

MAX_PROMPT_TOKENS = 256  # bounds the rotary tables; LIBERO's longest prompt has about 60
VIT_NAMES = ("featurizer", "fused_featurizer")


def emit_policy(graph: GraphBuilder, weights: Weights, config: PolicyConfig) -> None:
    """Write the policy into `graph`; inputs and output as docs/architecture.md names them."""
    oft, width = config.decoding, config.text.hidden_size
    size, channels = config.vision[0].image_size, 3 * len(config.vision) * oft.num_images
    pixels = graph.input("pixel_values", np.float32, [1, channels, size, size])
    ids = graph.input("input_ids", np.int64, [1, "prompt_tokens"])
    proprio = graph.input("proprio", np.float32, [1, oft.proprio_dim])

    patches = _patches(graph, weights, config, _to_compute(graph, pixels))
    proprio = graph.op("Reshape", _to_compute(graph, proprio), graph.constant([1, 1, oft.proprio_dim]))
    proprio = emit_mlp(graph, weights, "proprio_projector", proprio)
    prompt, stop = _embed(graph, weights, ids)
    zeros = graph.op("Expand", graph.constant(np.zeros((1, 1, 1))), graph.constant([1, oft.num_placeholders, width]))
    first, rest = slice_axis(graph, prompt, 1, 0, 1), slice_axis(graph, prompt, 1, 1, None)
    sequence = graph.op("Concat", first, patches, proprio, rest, zeros, stop, axis=1)

    fixed_tokens = oft.num_images * config.num_patches + 1 + oft.num_placeholders + 1
    slots = (-(oft.num_placeholders + 2), -2)  # the last prompt token, then all placeholders but the last
    hidden = emit_decoder(graph, weights, config.text, sequence, fixed_tokens + MAX_PROMPT_TOKENS, slots)
    actions = emit_l1_head(graph, weights, oft.chunk_length, hidden, oft.action_dim * width)
    if graph.compute != np.float32:
        actions = graph.op("Cast", actions, to=1)
    graph.output(actions, "actions", np.float32, [1, oft.chunk_length, oft.action_dim])


def _to_compute(graph: GraphBuilder, x: str) -> str:
    return x if graph.compute == np.float32 else graph.op("Cast", x, to=graph.onnx_compute)


def _patches(graph: GraphBuilder, weights: Weights, config: PolicyConfig, pixels: str) -> str:
    """[1, 3 * ViTs * images, S, S] -> projected patches [1, images * patches, D], image after image."""
    count, vits, size = config.decoding.num_images, len(config.vision), config.vision[0].image_size
    views = graph.op("Reshape", pixels, graph.constant([count, 3 * vits, size, size]))
    features = []
    for index, (name, vit) in enumerate(zip(VIT_NAMES, config.vision, strict=False)):
        images = views if vits == 1 else slice_axis(graph, views, 1, 3 * index, 3 * index + 3)
        features.append(emit_vit(graph, weights, vit, f"vision_backbone.{name}", images, count))
    joined = features[0] if vits == 1 else graph.op("Concat", *features, axis=-1)
    joined = graph.op("Reshape", joined, graph.constant([1, count * config.num_patches, config.vision_width]))
    return emit_mlp(graph, weights, "projector", joined)


def _embed(graph: GraphBuilder, weights: Weights, ids: str) -> tuple[str, str]:
    """Embeddings of the prompt [1, L, D] and of the stop token [1, 1, D], from one float16 table."""
    name = f"{PREFIX}.embed_tokens"
    with graph.scope(name):
        table = graph.tensor(f"{name}.weight.float16", weights.array(f"{name}.weight").astype(np.float16))
        rows = [graph.op("Gather", table, index, axis=0) for index in (ids, graph.constant([[STOP_TOKEN_ID]]))]
        if graph.compute == np.float16:
            return rows[0], rows[1]
        return tuple(graph.op("Cast", row, to=graph.onnx_compute) for row in rows)
