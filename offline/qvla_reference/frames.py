"""Records what the policy sees at work in LIBERO, spread over tasks and time.

A roll-out starts from a placement that the simulator samples, never from an official initial state:
those are the test set of closed-loop success. Its seed has a branch of its own, so no demonstration
and no other set of observations shows the same placement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.simulation.libero import LiberoObservation, LiberoTask

Policy = Callable[[LiberoObservation, str], np.ndarray]  # -> simulator actions, float64 [K, 7]
CHUNKS = 16  # of an episode: 128 steps, by which the policy has mostly succeeded
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Frame:
    """One observation of a roll-out, as the policy gets it.

    images: camera name -> uint8 [H, W, 3], not rotated. proprioception: float64 [8], position in m,
    axis-angle in rad, gripper in m. step: control periods since the start of the episode.
    """

    instruction: str
    images: dict[str, np.ndarray]
    proprioception: np.ndarray
    step: int


def wanted_chunks(count: int, episode: int, chunks: int = CHUNKS) -> list[int]:
    """Chooses `count` of the first `chunks` chunks, one from each equal part, ascending.

    Where in its part the chunk lies depends on the number of the episode, so that many episodes
    cover all chunks evenly.
    """
    offset = (episode * _GOLDEN_RATIO) % 1.0
    return sorted({int((part + offset) * chunks / count) for part in range(count)})


def roll_out_frames(
    task: LiberoTask, policy: Policy, seed: Sequence[int], wanted: Sequence[int]
) -> list[Frame]:
    """Rolls out once from a sampled placement; returns the observations at the chunks `wanted`.

    The episode ends with the last of them, with success, or at the step limit. If it ends before
    some of `wanted`, chunks that it did reach take their place, as far as there are any left.
    """
    rng = np.random.default_rng(list(seed))
    observation = task.reset(None, seed=int(rng.integers(2**31)))
    seen: list[Frame] = []
    success = False
    while not success and len(seen) <= max(wanted) and observation.step < task.max_steps:
        seen.append(_frame(observation, task.instruction))
        actions = policy(observation, task.instruction)
        for remaining, action in zip(reversed(range(len(actions))), actions, strict=True):
            observation, success = task.step(action, render=remaining == 0)
            if success:
                break
    return [seen[number] for number in _reached(wanted, len(seen))]


def _reached(wanted: Sequence[int], count: int) -> list[int]:
    """Returns as many of 0 ... `count` - 1 as are `wanted`, ascending.

    They are those wanted, then others evenly.
    """
    kept = [number for number in wanted if number < count]
    others = [number for number in range(count) if number not in kept]
    missing = min(len(wanted) - len(kept), len(others))
    return sorted(kept + [others[turn * len(others) // missing] for turn in range(missing)])


def _frame(observation: LiberoObservation, instruction: str) -> Frame:
    state = np.concatenate(
        [
            observation.eef_position_m,
            quaternion_to_axis_angle(observation.eef_quaternion_xyzw),
            observation.gripper_positions_m,
        ]
    )
    return Frame(instruction, observation.images, state, observation.step)
