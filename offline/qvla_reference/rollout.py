"""Lets a checkpoint drive LIBERO without ROS: the quick check of a policy in training.

The official figures come from `qvla eval`, through the ROS nodes. Here the same chain of images,
that of the robot description, runs in one process a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.robot import LIBERO, camera_specs
from qvla_reference.privileged import PrivilegedScene
from qvla_ros.actions import libero_action, quaternion_to_axis_angle
from qvla_ros.preprocess import RANGE_EPSILON, image_tensor, normalize_proprioception, prompt_ids
from qvla_ros.simulation.libero import LiberoObservation, LiberoTask


class Learner:
    """A policy as a function of (rendered observation, instruction).

    It returns simulator actions, float64 [K, 7].
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.cameras = camera_specs(checkpoint, LIBERO)

    def inputs(self, observation: LiberoObservation, instruction: str) -> PolicyInputs:
        """Returns what the network reads, a batch of one."""
        checkpoint = self.checkpoint
        proprio = checkpoint.statistics["proprio"]
        rotation = quaternion_to_axis_angle(observation.eef_quaternion_xyzw)
        state = np.concatenate(
            [observation.eef_position_m, rotation, observation.gripper_positions_m]
        )
        pixels = np.concatenate(
            [image_tensor(camera, observation.images[camera.name]) for camera in self.cameras]
        )
        return PolicyInputs(
            torch.from_numpy(pixels)[None],
            torch.from_numpy(prompt_ids(checkpoint.prompt, checkpoint.tokenizer, instruction)),
            torch.from_numpy(
                normalize_proprioception(state, proprio["q01"], proprio["q99"]).astype(np.float32)
            )[None],
        )

    def __call__(self, observation: LiberoObservation, instruction: str) -> np.ndarray:
        with torch.inference_mode():
            normalized = (
                self.checkpoint.model(self.inputs(observation, instruction))[0].double().numpy()
            )
        action = self.checkpoint.statistics["action"]
        low = np.array(action["q01"])
        high = np.array(action["q99"])
        scaled = 0.5 * (normalized + 1.0) * (high - low + RANGE_EPSILON) + low
        actions = np.where(action["mask"], scaled, normalized)
        return np.clip([libero_action(step) for step in actions], -1.0, 1.0)


@dataclass(frozen=True)
class EpisodeResult:
    """The result of one episode. steps: control periods until success or the limit."""

    suite: str
    task_id: int
    instruction: str
    init_state: int
    success: bool
    steps: int
    checkpoint_step: int | None
    # smallest distance of hand and object; privileged, tells a blind policy from a clumsy one
    closest_m: float
    lifted_m: float  # largest height the object was lifted to


def run_episode(task: LiberoTask, learner: Learner, init_state: int) -> EpisodeResult:
    """Runs one episode from an official initial state.

    Chunks are executed open loop, as in the OpenVLA-OFT evaluation.
    """
    scene = PrivilegedScene(task)
    observation = task.reset(init_state)
    start = scene.state()
    closest = np.inf
    lifted = 0.0
    success = False
    step = 0
    while step < task.max_steps and not success:
        actions = learner(observation, task.instruction)
        for remaining, action in zip(reversed(range(len(actions))), actions, strict=True):
            observation, success = task.step(action, render=remaining == 0)
            step += 1
            if success or step >= task.max_steps:
                break
        state = scene.state()
        closest = min(closest, float(np.linalg.norm(state.object_center_m - state.eef_position_m)))
        lifted = max(lifted, float(state.object_center_m[2] - start.object_center_m[2]))
    return EpisodeResult(
        task.suite,
        task.task_index,
        task.instruction,
        init_state,
        success,
        step,
        learner.checkpoint.step,
        round(closest, 4),
        round(lifted, 4),
    )


def load_learner(path: Path) -> Learner:
    """Loads a checkpoint as a Learner, on one thread: workers run side by side."""
    torch.set_num_threads(1)
    return Learner(load_checkpoint(path))
