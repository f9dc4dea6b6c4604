"""A small checkpoint and all that is made of it, for the verbs that compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import fake_quantize, target_shapes
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_offline.gates import Gates, write_gates
from tests.support.observations import write_observations

SCHEME = {"group_size": 16}


def write_quantized_checkpoint(folder: Path) -> Path:
    """Writes tiny, gates.json of 2 to 8 bits, bundle, fakequant and held_out; returns `folder`."""
    checkpoint = write_random_checkpoint(folder / "tiny")
    generator = np.random.default_rng(0)
    layers = {
        name: generator.choice([2, 4, 8], rows).astype(np.uint8)
        for name, (rows, _) in target_shapes(checkpoint).items()
    }
    sources = {"checkpoint_sha256": checkpoint_sha256(checkpoint)}
    gates = Gates(layers, "random", sources=sources, scheme=SCHEME)
    write_gates(folder / "gates.json", gates)
    export_bundle(checkpoint, gates, folder / "bundle", options=ExportOptions(tile=1))
    fake_quantize(checkpoint, gates, folder / "fakequant")
    write_observations(folder / "held_out", 12, seed=1)
    return folder
