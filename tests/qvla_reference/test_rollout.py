"""The quick check of a policy in training sees and does what training and the robot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_reference.augment import NONE
from qvla_reference.batches import Batcher
from qvla_reference.rollout import Learner
from qvla_reference.samples import DemonstratedTask, TrainingSamples
from qvla_ros.preprocess import jpeg_round_trip, lanczos3_resize, rotate_180
from qvla_ros.simulation.libero import LiberoObservation


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    """As the reference, its images are resized once, to what its ViTs take."""
    checkpoint = load_checkpoint(
        write_random_checkpoint(tmp_path_factory.mktemp("rollout") / "tiny")
    )
    return Learner(replace(checkpoint, config=replace(checkpoint.config, resize_size=28)))


def observation(seed: int) -> LiberoObservation:
    rng = np.random.default_rng(seed)
    gradient = np.linspace(0, 255, 256)[:, None, None] * rng.uniform(0.3, 1.0, (2, 1, 256, 3))
    return LiberoObservation(
        step=0,
        time_s=0.0,
        images={
            name: image.astype(np.uint8)
            for name, image in zip(("agentview", "wrist"), gradient, strict=True)
        },
        eef_position_m=np.array([-0.1, 0.05, 0.9]),
        eef_quaternion_xyzw=np.array([0.999, 0.02, 0.01, 0.03])
        / np.linalg.norm([0.999, 0.02, 0.01, 0.03]),
        joint_positions_rad=np.zeros(7),
        gripper_positions_m=np.array([0.03, -0.03]),
    )


def test_the_learner_reads_what_training_feeds(learner: Learner) -> None:
    checkpoint = learner.checkpoint
    seen = observation(0)
    inputs = learner.inputs(seen, "pick up the milk and place it in the basket")
    images = [
        lanczos3_resize(jpeg_round_trip(rotate_180(seen.images[name]), 95), 28)
        for name in ("agentview", "wrist")
    ]
    rotation = [2 * np.arccos(0.03 / np.linalg.norm([0.999, 0.02, 0.01, 0.03]))]
    axis = seen.eef_quaternion_xyzw[:3] / np.linalg.norm(seen.eef_quaternion_xyzw[:3])
    proprio = np.concatenate([seen.eef_position_m, axis * rotation, seen.gripper_positions_m])
    samples = TrainingSamples(
        images=np.stack(images)[None],
        proprio=proprio[None].astype(np.float32),
        chunks=np.zeros((1, 8, 7), np.float32),
        object_from_eef_m=np.zeros((1, 3), np.float32),
        goal_from_eef_m=np.zeros((1, 3), np.float32),
        task=np.zeros(1, np.int64),
    )
    sentences = ["pick up the milk and place it in the basket"]
    batcher = Batcher(
        checkpoint.statistics, checkpoint.tokenizer, checkpoint.prompt, "cpu", sentences, 2
    )
    batch = batcher.batch(samples, [DemonstratedTask("libero_object", 0, sentences[0])], NONE, 0)
    assert torch.equal(batch.inputs.input_ids, inputs.input_ids)
    torch.testing.assert_close(batch.inputs.proprio, inputs.proprio, rtol=0, atol=1e-5)
    one_level = 1.0 / 255.0 / 0.22  # the robot rounds the crop to uint8, training does not
    torch.testing.assert_close(
        batch.inputs.pixel_values, inputs.pixel_values, rtol=0, atol=1.01 * one_level
    )


def test_actions_are_the_simulators(learner: Learner) -> None:
    actions = learner(observation(1), "pick up the milk and place it in the basket")
    assert actions.shape == (8, 7)
    assert np.abs(actions).max() <= 1.0
    assert set(np.unique(actions[:, -1])) <= {-1.0, 1.0}
    with torch.inference_mode():
        inputs = learner.inputs(observation(1), "pick up the milk and place it in the basket")
        opening = learner.checkpoint.model(inputs)[0, :, -1].numpy()
    assert np.array_equal(actions[:, -1] < 0, opening > 0.5)  # the simulator opens at -1
