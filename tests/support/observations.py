"""Observations in files, and the verb that measures errors on them."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from qvla_ros.cli.main import main


def write_observations(folder, count: int, seed: int, **changes):
    """`count` lines with pictures and numbers that follow from `seed`; two lines an episode."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    lines = []
    for index in range(count):
        names = {"image": f"{seed}_{index}.png", "wrist_image": f"{seed}_{index}_wrist.png"}
        for name in names.values():
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        line = {
            "text": ("pick up the milk", "put the bowl on the plate")[index % 2],
            **names,
            "proprio": generator.normal(size=8).round(3).tolist(),
            "episode": index // 2,
        }
        lines.append(json.dumps(line | changes))
    path = folder / f"set_{seed}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def error(place, *more: str, observations: str = "held_out/set_1.jsonl") -> int:
    fixed = ["--pretrained_checkpoint", str(place / "tiny")]
    return main(["error", *fixed, "--observations", str(place / observations), *map(str, more)])
