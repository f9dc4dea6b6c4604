"""OpenVLA-OFT as one graph: all slots of a chunk decoded in one bidirectional pass.

Same arithmetic as `qvla_offline.checkpoints.openvla_oft` on one observation without padding.
With the diffusion head the graph is one denoising step: `noisy_actions` and `timestep` come in and
`noise` goes out.
"""

from __future__ import annotations

import math

import numpy as np

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.model import STOP_TOKEN_ID
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.heads import emit_mlp, emit_residual_mlp
from qvla_offline.export.inputs import embed, emit_patches, graph_inputs, to_compute, to_float32
from qvla_offline.export.llama import LlamaDecoder
from qvla_offline.export.modules import slice_axis
from qvla_offline.export.options import ExportOptions
from qvla_offline.export.weights import CheckpointWeights
from qvla_ros.preprocess import MAX_PROMPT_TOKENS


def emit_oft(
    graph: GraphBuilder, weights: CheckpointWeights, config: PolicyConfig, options: ExportOptions
) -> None:
    """Sequence: [BOS][patches][proprio][time][prompt rest][slots][stop].

    Slots are zeros, or the noisy actions.
    """
    decoding = config.decoding
    width = config.text.hidden_size
    diffusion = decoding.kind == "diffusion"
    pixels, ids = graph_inputs(graph, config)
    prompt = embed(graph, weights, ids)
    stop = embed(graph, weights, graph.constant(np.array([[STOP_TOKEN_ID]])))
    language = None
    if decoding.film:
        words = graph.op("Concat", prompt, stop, axis=1)
        language = graph.op("ReduceMean", words, graph.constant([1]), keepdims=1)
    inserted = [emit_patches(graph, weights, config, pixels, language)]
    if decoding.proprio_dim:
        inserted.append(_proprioception(graph, weights, decoding.proprio_dim))
    if diffusion:
        slots, time = _noisy_slots(graph, weights, config)
        inserted.append(time)
    else:
        zero = graph.constant(np.zeros((1, 1, 1)))
        shape = graph.constant([1, decoding.num_placeholders, width])
        slots = graph.op("Expand", zero, shape)
    first = slice_axis(graph, prompt, 1, 0, 1)
    rest = slice_axis(graph, prompt, 1, 1, None)
    sequence = graph.op("Concat", first, *inserted, rest, slots, stop, axis=1)

    fixed_tokens = decoding.num_images * config.num_patches + 2 + decoding.num_placeholders + 1
    decoder = LlamaDecoder(
        graph, weights, config.text, fixed_tokens + MAX_PROMPT_TOKENS, causal=False
    )
    # the last prompt token, then all placeholders but the last
    hidden = decoder(sequence, wanted=(-(decoding.num_placeholders + 2), -2))
    module = "action_head.noise_predictor.mlp_resnet" if diffusion else "action_head.model"
    with graph.scope(module):
        steps = graph.op(
            "Reshape",
            hidden,
            graph.constant([1, decoding.chunk_length, decoding.action_dim * width]),
        )
    result = to_float32(graph, emit_residual_mlp(graph, weights, module, steps))
    name = "noise" if diffusion else "actions"
    graph.output(result, name, np.float32, [1, decoding.chunk_length, decoding.action_dim])


def _proprioception(graph: GraphBuilder, weights: CheckpointWeights, proprio_dim: int) -> str:
    """One decoder token [1, 1, D]."""
    proprio = graph.input("proprio", np.float32, [1, proprio_dim])
    proprio = graph.op("Reshape", to_compute(graph, proprio), graph.constant([1, 1, proprio_dim]))
    return emit_mlp(graph, weights, "proprio_projector", proprio)


def _noisy_slots(
    graph: GraphBuilder, weights: CheckpointWeights, config: PolicyConfig
) -> tuple[str, str]:
    """Decoder tokens of the noisy actions [1, K * A, D] and of the diffusion time [1, 1, D]."""
    decoding = config.decoding
    half = config.text.hidden_size // 2
    noisy = graph.input(
        "noisy_actions", np.float32, [1, decoding.chunk_length, decoding.action_dim]
    )
    numbers = graph.op(
        "Reshape", to_compute(graph, noisy), graph.constant([1, decoding.num_placeholders, 1])
    )
    slots = emit_mlp(graph, weights, "noisy_action_projector", numbers)
    timestep = graph.input("timestep", np.float32, [1])
    with graph.scope("time_token"):
        frequencies = np.exp(
            np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0) / (half - 1))
        )
        angles = graph.op(
            "Mul", timestep, graph.constant(frequencies.reshape(1, 1, half), np.float32)
        )
        token = graph.op("Concat", graph.op("Sin", angles), graph.op("Cos", angles), axis=-1)
        return slots, to_compute(graph, token)
