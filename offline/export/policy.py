"""The whole policy as one graph, whatever its family: images, prompt and proprioception in, actions or tokens out."""

from __future__ import annotations

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.oft import emit_oft
from qvla_offline.export.tokens import emit_openvla, emit_univla
from qvla_offline.export.weights import Weights


def emit_policy(graph: GraphBuilder, weights: Weights, config: PolicyConfig) -> None:
    """Write the policy into `graph`; inputs and outputs as docs/architecture.md names them."""
    emitters = {"openvla": emit_openvla, "openvla-oft": emit_oft, "univla": emit_univla}
    emitters[config.decoding.family](graph, weights, config)
