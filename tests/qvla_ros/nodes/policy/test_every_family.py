"""A checkpoint of every family is quantized, and its bundle runs in a policy node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from PIL import Image

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import variants, write_random_checkpoint
from qvla_ros.cli.main import main
from qvla_ros.observation import Observation
from qvla_ros.policy import load_policy
from qvla_ros.safety import action_limits

if TYPE_CHECKING:
    from conftest import Robot

INSTRUCTION = "pick up the milk"
CHUNK_LENGTHS = {
    "openvla": 1,
    "openvla_oft": 8,
    "openvla_oft_diffusion": 8,
    "openvla_oft_film": 8,
    "univla": 12,
}
# what the robot reports: position, axis-angle, fingers
STATE = (
    0.1,
    -0.2,
    0.3,
    0.0,
    0.0,
    0.0,
    0.75,
    -0.5,
)
DRAWN = ("openvla_oft_diffusion", "univla")  # each look begins with other random numbers


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One observation, of noise."""
    folder = tmp_path_factory.mktemp("calibration")
    generator = np.random.default_rng(0)
    line: dict[str, object] = {
        "text": INSTRUCTION,
        "proprio": generator.uniform(-0.4, 0.4, 8).tolist(),
    }
    for view in ("image", "wrist_image"):
        line[view] = f"{view}.png"
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), np.uint8)).save(
            folder / f"{view}.png"
        )
    (folder / "calibration.jsonl").write_text(json.dumps(line))
    return folder / "calibration.jsonl"


def quantize(family: str, calibration: Path, folder: Path) -> Path:
    """What `qvla quantize` leaves of a tiny random checkpoint."""
    write_random_checkpoint(folder / "checkpoint", family)
    recipe = {
        "checkpoint": "checkpoint",
        "calibration": str(calibration),
        "out_dir": "out",
        "sensitivity": {"probes": 1, "max_samples": 1},
        "gates": {"target_avg_bits": 8.0, "cost": "stored"},
        "scheme": {"group_size": 16},
        "fakequant": True,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["quantize", "--recipe", str(folder / "recipe.yaml")]) == 0
    return folder / "out"


@pytest.mark.parametrize("family", variants())
def test_a_quantized_checkpoint_becomes_a_node_that_answers_with_its_actions(
    start: Callable, robot: Robot, calibration: Path, tmp_path: Path, family: str
) -> None:
    out = quantize(family, calibration, tmp_path)
    assert (
        load_checkpoint(out / "fakequant", lazily=True).family.name
        == load_checkpoint(tmp_path / "checkpoint").family.name
    )
    process = start("policy", {"bundle": str(out / "bundle"), "engine_options.threads": 1}, "x")
    policy = load_policy(out / "bundle", "onnxruntime", threads=1)
    bundle = policy.bundle
    assert bundle.quantization.stored_bits_per_weight <= 8.0
    topics = (robot.instruction, *(robot.images[camera.name] for camera in bundle.cameras))
    robot.wait(
        lambda: all(topic.get_subscription_count() for topic in topics),
        f"subscriptions; {process.stderr}",
    )
    robot.tell(INSTRUCTION)
    height = bundle.cameras[0].height
    width = bundle.cameras[0].width
    chunk = robot.ask(size=(height, width))

    actions = np.reshape(chunk.data, (chunk.horizon, len(chunk.names)))
    length = CHUNK_LENGTHS.get(family, bundle.actions.chunk_length)
    assert (chunk.bundle_id, chunk.horizon) == (bundle.bundle_id, length)
    assert np.isfinite(actions).all()
    low, high = action_limits(bundle)
    assert (actions >= low).all()
    assert (actions <= high).all()
    assert np.ptp(actions) > 0.01
    if family not in DRAWN:
        images = {camera.name: np.zeros((height, width, 3), np.uint8) for camera in bundle.cameras}
        state = np.array(STATE if bundle.proprioception else ())
        seen = Observation(images, state, INSTRUCTION, 0, {})
        np.testing.assert_allclose(actions, policy.infer(seen).actions, atol=1e-6)
    policy.close()
