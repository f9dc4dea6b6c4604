"""OpenVLA as one graph: the arithmetic of `qvla_offline.checkpoints.openvla` on one observation."""

from __future__ import annotations

import numpy as np

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.modules import linear
from qvla_offline.export.options import ExportOptions
from qvla_offline.export.tokens import HEAD, decode_tokens
from qvla_offline.export.weights import CheckpointWeights


def emit_openvla(
    graph: GraphBuilder, weights: CheckpointWeights, config: PolicyConfig, options: ExportOptions
) -> None:
    """Output: `action_tokens` int64 [1, A], each the likeliest after those before.

    guessed: input `guess` int64 [1, A - 1] besides the others.
    """
    count = config.decoding.action_dim

    def likeliest(hidden: str, index: int | None) -> str:
        return graph.op("ArgMax", linear(graph, weights, HEAD, hidden), axis=-1, keepdims=0)

    tokens, _ = decode_tokens(
        graph, weights, config, count, likeliest, options.guessed, only_last=True
    )
    graph.output(tokens, "action_tokens", np.int64, [1, count])
