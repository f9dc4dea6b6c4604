"""A tiny checkpoint with calibration samples, and recipes that quantize it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint

SAMPLES = 2


def write_inputs(folder: Path) -> Path:
    """Writes checkpoint/ and calibration.jsonl; returns the folder."""
    write_random_checkpoint(folder / "checkpoint")
    generator = np.random.default_rng(0)
    lines = []
    for index in range(SAMPLES):
        for view in ("image", "wrist_image"):
            Image.fromarray(generator.integers(0, 255, (32, 32, 3), np.uint8)).save(
                folder / f"{view}{index}.png"
            )
        paths = {view: f"{view}{index}.png" for view in ("image", "wrist_image")}
        state = generator.uniform(-0.4, 0.4, 8).tolist()
        lines.append(
            json.dumps({"text": "pick up the milk" + " now" * index, **paths, "proprio": state})
        )
    (folder / "calibration.jsonl").write_text("\n".join(lines))
    return folder


def recipe(**changes) -> dict:
    return {
        "checkpoint": "checkpoint",
        "calibration": "calibration.jsonl",
        "out_dir": "out",
        "sensitivity": {"probes": 1, "max_samples": SAMPLES},
        "gates": {"target_avg_bits": 8.0, "cost": "stored"},
        "scheme": {"group_size": 16},
        "fakequant": True,
    } | changes


def write_recipe(folder, name: str, **changes):
    path = folder / name
    path.write_text(yaml.safe_dump(recipe(**changes)))
    return path
