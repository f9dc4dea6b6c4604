"""Made-up episodes: what training reads, without a simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qvla_offline.checkpoints.tokenizer import LIBERO_INSTRUCTIONS
from qvla_reference.demonstrations import (
    CAMERAS,
    Demonstration,
    encode_jpeg,
    episode_path,
    write_episode,
)

Record = Callable[..., Path]  # (folder, task_id, episode number, suite) -> the file


def made_up_episode(
    seed: int, steps: int = 20, task_id: int = 0, suite: str = "libero_object"
) -> Demonstration:
    rng = np.random.default_rng(seed)
    level = 0.6 if task_id % 10 else -0.6  # the text tells which
    actions = np.full((steps, 7), level) + rng.normal(0, 0.1, (steps, 7))
    actions[:, -1] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    eef = rng.uniform(0, 0.3, (steps, 3))
    series = {
        "label_actions": actions,
        "executed_actions": actions,
        "is_push": np.zeros(steps, bool),
        "eef_position_m": eef,
        "eef_quaternion_xyzw": np.tile([1.0, 0.0, 0.0, 0.0], (steps, 1)),
        "gripper_positions_m": rng.uniform(0, 0.04, (steps, 2)) * [1, -1],
        "joint_positions_rad": np.zeros((steps, 7)),
        "object_position_m": eef + [0.1, 0.0, 0.0],
        "goal_position_m": eef + [0.0, 0.2, 0.0],
    }
    image_steps = np.arange(0, steps - 8, 4, dtype=np.int32)
    top_left_white = np.zeros((64, 64, 3), np.uint8)
    top_left_white[:32, :32] = 255
    return Demonstration(
        series={
            name: np.asarray(values, bool if name == "is_push" else np.float32)
            for name, values in series.items()
        },
        image_steps=image_steps,
        jpegs={camera: [encode_jpeg(top_left_white) for _ in image_steps] for camera in CAMERAS},
        facts={
            "instruction": LIBERO_INSTRUCTIONS[task_id % 10],
            "suite": suite,
            "task_id": task_id,
            "episode": seed,
            "seed": 0,
            "attempt": 0,
            "success_step": steps,
        },
    )


@pytest.fixture
def record() -> Record:
    """Writes one made-up episode below a folder of demonstrations."""

    def write(folder: Path, task_id: int, number: int, suite: str = "libero_object") -> Path:
        path = episode_path(folder, suite, task_id, number)
        write_episode(path, made_up_episode(number, task_id=task_id, suite=suite))
        return path

    return write


@pytest.fixture
def demonstrations(tmp_path: Path, record: Record) -> Path:
    """Episodes 0, 1 and, held out, 19 of two tasks of libero_object."""
    for number in (0, 1, 19):
        for task_id in (0, 4):
            record(tmp_path / "data", task_id, number)
    return tmp_path / "data"
