"""Two small recordings of `qvla reference demonstrations`, and the LeRobot dataset made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qvla_reference.demonstrations import (
    CAMERAS,
    Demonstration,
    encode_jpeg,
    episode_path,
    write_episode,
)
from qvla_reference.lerobot_export import export_demonstrations

SIZE = 32
# recording -> steps with images; the first was pushed once
STEPS = {
    0: [0, 3, 6, 18, 21],
    1: [0, 3],
}
LENGTH = 30


def picture(seed: int) -> np.ndarray:
    """A smooth picture without symmetry, uint8 [SIZE, SIZE, 3]: dark at its corner of origin."""
    ramp = np.linspace(0, 200, SIZE)
    return np.stack(
        [ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], np.full((SIZE, SIZE), 20.0 * seed)], 2
    ).astype(np.uint8)


def recording(task_id: int, learner: bool = False) -> Demonstration:
    rng = np.random.default_rng(task_id)
    steps = STEPS[task_id]
    widths = {
        "label_actions": 7,
        "executed_actions": 7,
        "eef_position_m": 3,
        "gripper_positions_m": 2,
    }
    widths |= {"joint_positions_rad": 7, "object_position_m": 3, "goal_position_m": 3}
    series = {
        name: rng.uniform(-1, 1, (LENGTH, width)).astype(np.float32)
        for name, width in widths.items()
    }
    series["label_actions"][:, 6] = np.where(np.arange(LENGTH) < 10, -1, 1)
    series["is_push"] = np.isin(np.arange(LENGTH), range(14, 18))
    series["eef_quaternion_xyzw"] = np.tile(np.array([1, 0, 0, 0], np.float32), (LENGTH, 1))
    jpegs = {
        camera: [encode_jpeg(picture(view + 2 * i)) for i in range(len(steps))]
        for view, camera in enumerate(CAMERAS)
    }
    facts = dict(
        instruction=f"pick up thing {task_id}",
        suite="libero_object",
        task_id=task_id,
        success_step=20,
    )
    chunks = rng.uniform(-1, 1, (len(steps), 8, 7)).astype(np.float32) if learner else None
    return Demonstration(series, np.array(steps, np.int32), jpegs, facts, chunks)


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demonstrations")
    for task_id in STEPS:
        write_episode(episode_path(folder, "libero_object", task_id, 0), recording(task_id))
    write_episode(episode_path(folder, "libero_object", 1, 50000), recording(1, learner=True))
    return folder


@pytest.fixture(scope="session")
def dataset(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "lerobot"
    export_demonstrations(demonstrations, "libero_object", out)
    return out
