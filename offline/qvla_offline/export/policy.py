"""The whole policy as one graph, whatever its family: images, prompt and proprioception in, actions
or tokens out.
"""

from __future__ import annotations

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.oft import emit_oft
from qvla_offline.export.tokens import emit_openvla, emit_univla
from qvla_offline.export.weights import Weights


def emit_policy(
    graph: GraphBuilder, weights: Weights, config: PolicyConfig, guessed: bool = False
) -> None:
    """Write the policy into `graph`; inputs and outputs as docs/architecture.md names them.

    guessed: which form token by token decoding has, see `tokens`; for OpenVLA and UniVLA.
    """
    if config.decoding.family == "openvla-oft":
        emit_oft(graph, weights, config)
    elif config.decoding.kind == "univla":
        emit_univla(graph, weights, config, guessed)
    else:
        emit_openvla(graph, weights, config, guessed)
