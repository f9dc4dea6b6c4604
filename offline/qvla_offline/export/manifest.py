"""The manifest of a bundle, from a checkpoint, its robot and the graph that was stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.tensor_source import config_file
from qvla_offline.export.stored import StoredGraph, StoredLinear
from qvla_offline.gates import Gates
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.robot import RobotDescription, camera_specs
from qvla_ros.bundle import (
    ActionSpec,
    DecoderSpec,
    Manifest,
    ProprioceptionSpec,
    QuantizationSummary,
    sha256_of,
)
from qvla_ros.errors import QvlaError
from qvla_ros.specifications import FIX_MANIFEST


@contextmanager
def values_of(checkpoint: Checkpoint) -> Iterator[None]:
    """Says of values that no bundle may have where they come from: it is not made yet."""
    try:
        yield
    except QvlaError as error:
        if error.fix != FIX_MANIFEST:
            raise
        fix = f"correct it in {config_file(checkpoint.path)}, or in the robot's file"
        raise QvlaError(error.key, error.value, error.expected, fix) from None


def summarize(
    gates: Gates | None,
    scheme: QuantizationScheme,
    stored: StoredGraph,
    targets: Mapping[str, StoredLinear],
    parameters: int,
    gates_file: Path | None,
) -> QuantizationSummary:
    """Returns the sizes as they are in the graph.

    Bits per weight count `targets`: the quantization targets that the graph executes. parameters:
    numbers of the checkpoint that the graph stands for. gates_file: the bundle's; None for float16.
    """
    weights = sum(len(layer.bits) * layer.inputs for layer in targets.values())
    nominal_bits = sum(layer.nominal_bits for layer in targets.values())
    target_bytes = sum(
        size
        for name, size in stored.stored_bytes.items()
        if name.partition(".weight.")[0] in targets
    )
    return QuantizationSummary(
        method="none" if gates is None else gates.method,
        gates_sha256=None if gates_file is None else sha256_of(gates_file),
        nominal_bits_per_weight=round(nominal_bits / weights, 4),
        stored_bits_per_weight=round(8 * target_bytes / weights, 4),
        weight_bytes=sum(stored.stored_bytes.values()),
        float16_weight_bytes=2 * parameters,
        group_size=None if gates is None else scheme.group_size,
    )


def describe_bundle(
    checkpoint: Checkpoint,
    robot: RobotDescription,
    summary: QuantizationSummary,
    decoder: DecoderSpec,
) -> Manifest:
    """Returns all that a robot must know of the policy besides its graph."""
    decoding = checkpoint.config.decoding
    return Manifest(
        family=checkpoint.family.name,
        cameras=camera_specs(checkpoint, robot),
        proprioception=ProprioceptionSpec(robot.proprioception, decoding.normalization)
        if decoding.proprio_dim
        else None,
        prompt=checkpoint.prompt,
        actions=ActionSpec(
            **asdict(robot.actions),
            chunk_length=1 if decoder.one_action else decoding.chunk_length,
            normalization=decoding.normalization,
        ),
        quantization=summary,
        decoder=decoder,
    )
