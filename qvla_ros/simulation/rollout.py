"""Executes chunks on a simulated arm, and holds it still when none comes. Imports no ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from qvla_ros.actions import Actions, libero_action
from qvla_ros.simulation.libero import HOLD_ACTION, LiberoObservation
from qvla_ros.simulation.specification import CONTROL_PERIOD_S, METRES_PER_UNIT

# At rest: less than 0.2 mm a control period (4 mm/s), five times running.
REST_STEP_M = 2e-4
REST_STEPS = 5
HOLD_MAX_STEPS = 100


class SimulatedTask(Protocol):
    """A task of a simulator, as a rollout needs it: LiberoTask or FakeTask."""

    instruction: str
    max_steps: int

    @property
    def init_state_count(self) -> int: ...
    def reset(self, init_state: int | None, seed: int = 0) -> LiberoObservation: ...
    def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]: ...
    def close(self) -> None: ...


@dataclass
class Rollout:
    """The course of an episode so far.

    commanded_m: the end effector's position plus the commanded delta, [3] a step.
    """

    success: bool = False
    steps: int = 0
    commanded_m: list[np.ndarray] = field(default_factory=list)
    last_action: np.ndarray = field(default_factory=lambda: np.array(HOLD_ACTION))


@dataclass(frozen=True)
class Hold:
    """A record of how the arm came to rest. moved_m: its largest distance to the held position."""

    at_rest: bool
    duration_s: float
    moved_m: float

    def __str__(self) -> str:
        end = "came to rest" if self.at_rest else "was still moving"
        return (
            f"The arm is held where it was: it {end} after {self.duration_s:.2f} s, at most "
            f"{1e3 * self.moved_m:.1f} mm away; the gripper stays as it was."
        )


def execute(
    task: SimulatedTask, rollout: Rollout, observation: LiberoObservation, actions: Actions
) -> LiberoObservation:
    """Executes a chunk [K, 7] (opening fractions) until it, the episode or the step limit ends.

    Only the last observation is drawn; it is returned.
    """
    actions = actions[: task.max_steps - rollout.steps]
    for index, action in enumerate(actions):
        rollout.last_action = libero_action(action)
        rollout.commanded_m.append(
            observation.eef_position_m + METRES_PER_UNIT * rollout.last_action[:3]
        )
        observation, rollout.success = task.step(
            rollout.last_action, render=index == len(actions) - 1
        )
        rollout.steps += 1
        if rollout.success:
            break
    return observation


def hold_action(stay_m: np.ndarray, position_m: np.ndarray, last_action: np.ndarray) -> np.ndarray:
    """The action [7] that brings an arm from `position_m` [3] back to `stay_m` [3].

    The gripper stays as `last_action` [7] had it. Zero deltas would not do: LIBERO's controller
    starts from where the arm has drifted to, so that from full speed it coasts for centimetres.
    """
    back = np.clip((stay_m - position_m) / METRES_PER_UNIT, -1.0, 1.0)
    return np.concatenate([back, np.zeros(3), last_action[6:]])


def hold_still(task: SimulatedTask, rollout: Rollout, observation: LiberoObservation) -> Hold:
    """Holds the position of `observation` and the gripper until the arm rests.

    It gives up after HOLD_MAX_STEPS.
    """
    stay_m = observation.eef_position_m
    positions_m = [stay_m]
    resting = 0
    while resting < REST_STEPS and len(positions_m) <= HOLD_MAX_STEPS:
        action = hold_action(stay_m, positions_m[-1], rollout.last_action)
        positions_m.append(task.step(action, render=False)[0].eef_position_m)
        resting = (
            resting + 1 if np.linalg.norm(positions_m[-1] - positions_m[-2]) < REST_STEP_M else 0
        )
    moved_m = float(np.linalg.norm(np.array(positions_m) - stay_m, axis=1).max())
    return Hold(resting == REST_STEPS, (len(positions_m) - 1) * CONTROL_PERIOD_S, moved_m)
