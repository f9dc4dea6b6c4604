"""Writes the calibration set that goes with the policy; none of it is a test episode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qvla_reference.demonstrations import CAMERAS, encode_jpeg, read_episode
from qvla_reference.samples import proprio_of
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import PromptSpec
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import prompt_text, rotate_180

_GOLDEN_RATIO = (
    5**0.5 - 1
) / 2  # steps of this part of a circle cover it evenly, however many are taken


def write_calibration_set(
    demonstrations: Path, out: Path, prompt: PromptSpec, count: int = 64
) -> None:
    """Writes <out>/calibration.jsonl and its images, `count` observations.

    They are even over suites, tasks and phases. So is every first part of them, because a
    quantization may take only the first few.

    A line: {"text": full prompt, "image": agent view, "wrist_image": ..., "proprio": 8 raw
    numbers}; images upright (turned by 180 degrees), 256 x 256, paths relative to the file.
    """
    suites: dict[Path, list[Path]] = {}
    for task in sorted({path.parent for path in demonstrations.rglob("episode_*.npz")}):
        suites.setdefault(task.parent, []).append(task)
    if not suites:
        fix = "record some with `qvla reference demonstrations`"
        raise QvlaError("demonstrations", f"no episode below {demonstrations}", "at least one", fix)
    (out / "calibration").mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        of_suite, suite = divmod(index, len(suites))  # the how-manieth of its suite
        tasks = list(suites.values())[suite]
        turn = of_suite // len(tasks)  # the how-manieth of its task
        paths = sorted(tasks[of_suite % len(tasks)].glob("episode_*.npz"))
        episode = read_episode(paths[turn % len(paths)])
        phase = (index * _GOLDEN_RATIO) % 1.0
        row = min(int(phase * len(episode.image_steps)), len(episode.image_steps) - 1)
        names = {
            "image": f"calibration/{index:03d}.jpg",
            "wrist_image": f"calibration/{index:03d}_wrist.jpg",
        }
        for camera, name in zip(CAMERAS, names.values(), strict=True):
            upright = np.ascontiguousarray(rotate_180(episode.image(camera, row)))
            with atomic_file(out / name) as temporary:
                temporary.write_bytes(encode_jpeg(upright))
        proprio = proprio_of(episode)[episode.image_steps[row]]
        text = prompt_text(prompt, episode.facts["instruction"])
        lines.append(
            json.dumps(
                {"text": text, **names, "proprio": [round(float(value), 6) for value in proprio]}
            )
        )
    with atomic_file(out / "calibration.jsonl") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
