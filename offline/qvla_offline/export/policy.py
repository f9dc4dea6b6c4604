"""Writes the whole policy of any family as one graph.

Images, prompt and proprioception go in, actions or tokens come out.
"""

from __future__ import annotations

from qvla_offline.checkpoints.config import PolicyConfig
from qvla_offline.checkpoints.family import family_of
from qvla_offline.export.graph import GraphBuilder
from qvla_offline.export.options import DEFAULT_OPTIONS, ExportOptions
from qvla_offline.export.weights import CheckpointWeights


def emit_policy(
    graph: GraphBuilder,
    weights: CheckpointWeights,
    config: PolicyConfig,
    options: ExportOptions = DEFAULT_OPTIONS,
) -> None:
    """Writes the policy into `graph`; inputs and outputs as docs/architecture.md names them."""
    family_of(config.decoding.kind).emit(graph, weights, config, options)
