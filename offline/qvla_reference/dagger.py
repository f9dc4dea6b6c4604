"""Records episodes that the learner drives and the expert labels.

This is DAgger (Ross et al. 2011) for policies that answer with a chunk: at a state that the learner
visits, the expert runs for a chunk in a branch of the simulation, which is then undone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvla_reference.demonstrations import (
    CHUNK_LENGTH,
    Demonstration,
    Disturbances,
    assemble_episode,
    random_start,
    series_row,
)
from qvla_reference.expert import PickPlaceExpert
from qvla_reference.privileged import PrivilegedScene
from qvla_ros.simulation.libero import LiberoObservation, LiberoTask

# Half of the starts are those of a test: that is where the learner's own path begins.
DISTURBANCES = Disturbances(start_at_rest=0.5)

Learner = Callable[[LiberoObservation, str], np.ndarray]
"""(rendered observation, instruction) -> simulator actions, float [K, 7].

Of the actions six are deltas in [-1, 1], and the gripper is -1 or +1.
"""


def expert_chunk(
    task: LiberoTask, expert: PickPlaceExpert, scene: PrivilegedScene, horizon: int = CHUNK_LENGTH
) -> np.ndarray:
    """Returns what the expert would do next to reach the goal of `scene`, float32 [horizon, 7].

    The simulation is as it was afterwards.
    """
    labels = []
    with task.branch():
        for _ in range(horizon):
            labels.append(expert.act(scene.state()))
            task.step(labels[-1], render=False)
    return np.array(labels, dtype=np.float32)


def record_learner_episode(
    task: LiberoTask,
    expert: PickPlaceExpert,
    learner: Learner,
    seed: tuple[int, ...],
    expert_share: float = 0.0,
    disturbances: Disturbances = DISTURBANCES,
    hold_steps: int = CHUNK_LENGTH,
) -> Demonstration:
    """Lets `learner` drive from a fresh placement; the expert labels each chunk.

    The episode ends with success, at the step limit, or when the object falls off the table, where
    the arm cannot reach it. Other failures are kept: there the labels matter. seed: every random
    choice follows from it. expert_share: share of the chunks that the expert executes instead of
    the learner, so that a poor learner still sees the later parts of the task. The learner is asked
    once a chunk, as it will be when deployed.
    """
    rng = np.random.default_rng(seed)
    scene = PrivilegedScene(task)
    while True:
        task.reset(None, seed=int(rng.integers(2**31)))
        observation = random_start(task, scene, rng, disturbances)
        if not _has_fallen(scene):  # a few placements throw their object off the table
            break
    rows: list[dict[str, Any]] = []
    frames: dict[int, dict[str, np.ndarray]] = {}
    chunks: list[np.ndarray] = []
    success_step = -1
    while (
        len(rows) < task.max_steps
        and not (0 <= success_step <= len(rows) - hold_steps)
        and not _has_fallen(scene)
    ):
        frames[len(rows)] = observation.images
        chunks.append(expert_chunk(task, expert, scene))
        actions = (
            chunks[-1] if rng.random() < expert_share else learner(observation, task.instruction)
        )
        for remaining, action in zip(reversed(range(len(actions))), actions, strict=True):
            state = scene.state()
            rows.append(
                series_row(observation, state, expert.act(state), np.asarray(action), False)
            )
            observation, success = task.step(action, render=remaining == 0)
            if success and success_step < 0:
                success_step = len(rows)
    return assemble_episode(task, rows, frames, success_step, np.stack(chunks))


def _has_fallen(scene: PrivilegedScene) -> bool:
    """Whether the object lies lower than what its container stands on."""
    state = scene.state()
    return bool(state.object_points_m[:, 2].max() < state.floor_m)
