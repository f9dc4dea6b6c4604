"""Records the same pictures with the expert's next action for each object that could be named.

In libero_object a scene gives its target away, so a policy learns to ignore the instruction. A few
demonstrations of other objects do not undo that: at the start the pictures are the same, and
the usual label is the most frequent one. Here every picture comes with one label for each of the
scene's six objects, so that only the instruction tells them apart. The hand wanders from above one
object to above another and never grasps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qvla_reference.dagger import expert_chunk
from qvla_reference.demonstrations import (
    Demonstration,
    Disturbances,
    assemble_episode,
    random_start,
    series_row,
)
from qvla_reference.expert import CLOSE, PickPlaceExpert
from qvla_reference.privileged import PrivilegedScene
from qvla_ros.simulation.libero import ACTION_SIZE, LiberoTask
from qvla_ros.simulation.named_object import (
    OTHERS_A_SCENE,
    SCENE_SUITE,
    SUITE,
    goal_of,
    instruction_of,
    other_objects,
)

STEPS = 80
IMAGE_PERIOD = 5
STEPS_A_TARGET = (6, 24)  # towards one object before another is drawn
LARGEST_NOISE = 0.25  # of the translation, action units; rotation has a fifth


def record_every_instruction(
    task: LiberoTask, expert: PickPlaceExpert, seed: tuple[int, ...], steps: int = STEPS
) -> list[Demonstration]:
    """Records one wandering episode in a scene of libero_object as six, one for each object.

    The first is that of the scene's usual object; all have the same pictures. Every random choice
    follows from `seed`.
    """
    rng = np.random.default_rng(seed)
    others = other_objects(task.environment)
    scenes = [
        PrivilegedScene(task),
        *(PrivilegedScene(task, goal_of(task.environment, name)) for name in others),
    ]
    task.reset(None, seed=int(rng.integers(2**31)))
    observation = random_start(
        task, scenes[int(rng.integers(len(scenes)))], rng, Disturbances(start_near_object=0.5)
    )
    noise = rng.uniform(0.0, LARGEST_NOISE) * np.array([1.0] * 3 + [0.2] * 3 + [0.0])
    rows: list[list[dict[str, Any]]] = [[] for _ in scenes]
    chunks: list[list[np.ndarray]] = [[] for _ in scenes]
    frames: dict[int, dict[str, np.ndarray]] = {}
    target = 0
    until = 0
    for step in range(steps):
        states = [scene.state() for scene in scenes]
        labels = [expert.act(state) for state in states]
        while step >= until or labels[target][-1] == CLOSE:  # it would grasp: go elsewhere instead
            target = _other(rng, target, len(scenes))
            until = step + int(rng.integers(*STEPS_A_TARGET))
        if observation.images:
            frames[step] = observation.images
            for scene, chunk in zip(scenes, chunks, strict=True):
                chunk.append(expert_chunk(task, expert, scene))
        action = np.clip(labels[target] + noise * rng.standard_normal(ACTION_SIZE), -1.0, 1.0)
        for row, state, label in zip(rows, states, labels, strict=True):
            row.append(series_row(observation, state, label, action, False))
        observation, _ = task.step(action, render=(step + 1) % IMAGE_PERIOD == 0)
    episodes = []
    for index, (row, chunk) in enumerate(zip(rows, chunks, strict=True)):
        episode = assemble_episode(task, row, frames, -1, np.stack(chunk))
        if index:
            number = task.task_index * OTHERS_A_SCENE + index - 1
            episode.facts.update(
                suite=SUITE, task_id=number, instruction=instruction_of(others[index - 1])
            )
        episodes.append(episode)
    assert task.suite == SCENE_SUITE, task.suite
    return episodes


def _other(rng: np.random.Generator, target: int, count: int) -> int:
    return int((target + rng.integers(1, count)) % count)
