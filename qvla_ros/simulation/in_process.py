"""Lets a policy drive a simulated arm in this process, in lock-step: no ROS, one chunk at a time.

The policy is the one that the node runs (qvla_ros.policy), and it reads what the node would read,
so an episode is the one that `qvla eval` runs over DDS, number for number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.observation import Observation, proprioception_vector
from qvla_ros.policy import Policy
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.motion import gripper_flips, path_length_m, rms_jerk_m_s3
from qvla_ros.simulation.rollout import Rollout, SimulatedTask, execute
from qvla_ros.simulation.specification import (
    ACTION_KIND,
    ACTION_NAMES,
    ACTION_UNITS,
    CAMERA_NAMES,
    CONTROL_PERIOD_S,
    FINGER_NAMES,
    GRIPPER_INDEX,
    JOINT_NAMES,
    POSE_FRAME,
)


@dataclass(frozen=True)
class EpisodeOutcome:
    """The course of one episode.

    steps: control periods until success or the limit. inference_ms: one number a chunk. jerk_m_s3:
    RMS of the commanded path, None below four steps. path_length_m: way of the end effector.
    gripper_flips: how often the gripper's command changed between opening and closing.
    """

    success: bool
    steps: int
    inference_ms: tuple[float, ...]
    jerk_m_s3: float | None
    path_length_m: float
    gripper_flips: int


def run_episode(task: SimulatedTask, policy: Policy, init_state: int, seed: int) -> EpisodeOutcome:
    """Runs one episode from an official initial state; QvlaError if the policy gives no chunk.

    The bundle must be one that `require_simulated_arm` accepts.
    """
    noted = _Noted(task)
    rollout = Rollout()
    observation = task.reset(init_state, seed)
    positions_m = [observation.eef_position_m]
    policy.reset()
    inference_ms = []
    while not rollout.success and rollout.steps < task.max_steps:
        prediction = policy.infer(sensed(observation, policy.bundle, task.instruction))
        inference_ms.append(prediction.latency_ms["inference"])
        observation = execute(noted, rollout, observation, prediction.actions)
    return EpisodeOutcome(
        rollout.success,
        rollout.steps,
        tuple(inference_ms),
        rms_jerk_m_s3(rollout.commanded_m, CONTROL_PERIOD_S),
        path_length_m([*positions_m, *noted.positions_m]),
        gripper_flips(noted.gripper),
    )


def sensed(observation: LiberoObservation, bundle: Bundle, instruction: str) -> Observation:
    """What the policy of `bundle` sees of the simulator's `observation`."""
    joints = dict(zip(JOINT_NAMES, observation.joint_positions_rad, strict=True))
    joints |= dict(zip(FINGER_NAMES, observation.gripper_positions_m, strict=True))
    names = () if bundle.proprioception is None else bundle.proprioception.names
    state = proprioception_vector(
        names, joints, observation.eef_position_m, observation.eef_quaternion_xyzw
    )
    images = {camera.name: observation.images[camera.name] for camera in bundle.cameras}
    return Observation(images, state, instruction, 0, {})


def require_simulated_arm(bundle: Bundle) -> None:
    """Raises QvlaError unless the policy sees and commands LIBERO's arm."""
    actions = bundle.actions
    found = (actions.kind, actions.names, actions.units, actions.frame, actions.control_period_s)
    expected = (ACTION_KIND, ACTION_NAMES, ACTION_UNITS, POSE_FRAME, CONTROL_PERIOD_S)
    cameras = [camera.name for camera in bundle.cameras]
    unknown = sorted(set(cameras) - set(CAMERA_NAMES))
    if found != expected or unknown:
        raise QvlaError(
            f"bundle {bundle.directory}",
            f"actions {found}, cameras {cameras}",
            f"actions {expected}, cameras of {list(CAMERA_NAMES)}",
            "only policies for LIBERO's arm run in its simulation: leave this one out",
        )


class _Noted:
    """A simulated task that notes the gripper's commands [-1, 1] and where the arm went."""

    def __init__(self, task: SimulatedTask) -> None:
        self._task = task
        self.instruction = task.instruction
        self.max_steps = task.max_steps
        self.gripper: list[float] = []
        self.positions_m: list[np.ndarray] = []

    @property
    def init_state_count(self) -> int:
        return self._task.init_state_count

    def reset(self, init_state: int | None, seed: int = 0) -> LiberoObservation:
        return self._task.reset(init_state, seed)

    def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
        observation, success = self._task.step(action, render)
        self.gripper.append(float(action[GRIPPER_INDEX]))
        self.positions_m.append(observation.eef_position_m)
        return observation, success

    def close(self) -> None:
        self._task.close()
