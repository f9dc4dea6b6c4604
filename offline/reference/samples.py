"""Training samples from recorded episodes: what the policy would have seen, and what the expert would have done.

Every episode is decoded once into small uint8 images and kept beside the training run, so that a later start is quick.
The images went through the robot's own functions (qvla_ros.preprocess), up to the centre crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from qvla_offline.reference.demonstrations import CAMERAS, Episode, read_episode

from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import lanczos3_resize, rotate_180


@dataclass(frozen=True)
class Samples:
    """N observations with their chunks, SI units, actions in the dataset convention (gripper 0 closed, 1 open)."""

    images: np.ndarray  # uint8 [N, cameras, S, S, 3], upright
    proprio: np.ndarray  # float32 [N, 8]
    chunks: np.ndarray  # float32 [N, 8, 7]
    object_from_eef_m: np.ndarray  # float32 [N, 3], world axes; for the auxiliary loss
    goal_from_eef_m: np.ndarray  # float32 [N, 3]
    task: np.ndarray  # int64 [N], index into `instructions` of the set

    def __len__(self) -> int:
        return len(self.images)

    def part(self, index: int, count: int) -> Samples:
        """Every `count`-th sample from `index` on."""
        return Samples(**{field.name: getattr(self, field.name)[index::count] for field in fields(Samples)})


def proprio_of(episode: Episode) -> np.ndarray:
    """The released state vector of every step, float32 [T, 8]: position, axis-angle, two finger positions."""
    series = episode.series
    rotations = np.stack([quaternion_to_axis_angle(quaternion) for quaternion in series["eef_quaternion_xyzw"]])
    return np.concatenate([series["eef_position_m"], rotations, series["gripper_positions_m"]], axis=1).astype(
        np.float32
    )


def dataset_actions(simulator_actions: np.ndarray) -> np.ndarray:
    """Simulator actions [..., 7] (gripper -1 open, +1 close) in the dataset convention (gripper 1 open, 0 closed)."""
    return np.concatenate([simulator_actions[..., :-1], (1.0 - simulator_actions[..., -1:]) / 2.0], axis=-1)


def decode_episode(episode: Episode, size: int) -> Samples:
    """Samples of one episode, `task` all zero; images resized to `size`."""
    steps = episode.image_steps
    images = np.zeros((len(steps), len(CAMERAS), size, size, 3), np.uint8)
    for index in range(len(steps)):
        for view, camera in enumerate(CAMERAS):
            images[index, view] = lanczos3_resize(rotate_180(episode.image(camera, index)), size)
    chunks = np.stack([episode.action_chunk(index) for index in range(len(steps))])
    eef = episode.series["eef_position_m"][steps]
    return Samples(
        images=images,
        proprio=proprio_of(episode)[steps],
        chunks=dataset_actions(chunks).astype(np.float32),
        object_from_eef_m=episode.series["object_position_m"][steps] - eef,
        goal_from_eef_m=episode.series["goal_position_m"][steps] - eef,
        task=np.zeros(len(steps), np.int64),
    )


class SampleSet:
    """All samples of a folder of demonstrations, in memory; `refresh` picks up episodes that have appeared since."""

    def __init__(self, demonstrations: Path, cache: Path, size: int, select: Callable[[Path], bool]) -> None:
        self.demonstrations, self.cache, self.size, self.select = demonstrations, cache, size, select
        self.instructions: list[str] = []
        self.episodes: list[Samples] = []
        self._known: set[Path] = set()
        self._index = np.zeros((0, 2), np.int64)  # (episode, row) of every sample
        self._probability = np.zeros(0)

    def refresh(self, limit: int | None = None) -> int:
        """Decode and add new episodes (at most `limit`), in the order of their names; returns how many were added."""
        found = (path for path in self.demonstrations.rglob("episode_*.npz") if self.select(path))
        new = sorted(path for path in found if path not in self._known)[:limit]
        for path in new:
            self._known.add(path)
            samples, instruction = self._load(path)
            if len(samples) == 0:
                continue
            if instruction not in self.instructions:
                self.instructions.append(instruction)
            samples.task[:] = self.instructions.index(instruction)
            self.episodes.append(samples)
        if new:
            self._reindex()
        return len(new)

    def __len__(self) -> int:
        return len(self._index)

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """`count` samples. A task's share grows with the root of its size, so that a task with few episodes is neither
        drowned nor learnt by heart; within a task the samples around a grasp or release are twice as likely.
        """
        if not len(self):
            fix = "record some with `qvla demonstrations`"
            raise QvlaError("demonstrations", f"no episode below {self.demonstrations}", "at least one", fix)
        chosen = self._index[np.searchsorted(self._probability, rng.random(count), side="right")]
        return self.take(chosen)

    def take(self, pairs: Sequence[Sequence[int]] | np.ndarray) -> Samples:
        """The samples at (episode, row) pairs."""
        rows = {
            field.name: np.stack([getattr(self.episodes[episode], field.name)[row] for episode, row in pairs])
            for field in fields(Samples)
        }
        return Samples(**rows)

    def _reindex(self) -> None:
        tasks = np.concatenate([samples.task for samples in self.episodes])
        weights = np.concatenate([_sample_weights(samples) for samples in self.episodes])
        per_task = np.bincount(tasks, weights)
        weights = weights / np.sqrt(per_task[tasks])
        self._probability = np.cumsum(weights) / weights.sum()
        self._probability[-1] = 1.0
        lengths = [len(samples) for samples in self.episodes]
        episode = np.repeat(np.arange(len(lengths)), lengths)
        row = np.concatenate([np.arange(length) for length in lengths])
        self._index = np.stack([episode, row], axis=1)

    def _load(self, path: Path) -> tuple[Samples, str]:
        cached = self.cache / f"{self.size}px" / path.relative_to(self.demonstrations)
        if cached.exists() and cached.stat().st_mtime >= path.stat().st_mtime:
            with np.load(cached, allow_pickle=False) as archive:
                samples = Samples(**{field.name: archive[field.name] for field in fields(Samples)})
                return samples, archive["instruction"].item()
        episode = read_episode(path)
        samples = decode_episode(episode, self.size)
        arrays = {field.name: getattr(samples, field.name) for field in fields(Samples)}
        with atomic_file(cached) as temporary:
            np.savez(temporary, instruction=np.array(episode.facts["instruction"]), **arrays)
        return samples, episode.facts["instruction"]


def _sample_weights(samples: Samples) -> np.ndarray:
    """2 where the gripper's command changes within the chunk, 1 elsewhere."""
    gripper = samples.chunks[..., -1]
    return 1.0 + (np.ptp(gripper, axis=1) > 0.5)


def dataset_statistics(samples: Sequence[Samples]) -> dict[str, object]:
    """{"action": ..., "proprio": ...} as OpenVLA-OFT stores them; the gripper is left as it is (mask false, 0 to 1)."""
    actions = np.concatenate([part.chunks[:, 0] for part in samples]).astype(np.float64)
    proprio = np.concatenate([part.proprio for part in samples]).astype(np.float64)
    action = _ranges(actions)
    action["q01"][-1], action["q99"][-1] = 0.0, 1.0
    return {
        "action": {**action, "mask": [True] * 6 + [False]},
        "proprio": _ranges(proprio),
        "num_transitions": len(actions),
        "num_trajectories": len(samples),
    }


def _ranges(values: np.ndarray) -> dict[str, list[float]]:
    rows = {
        "mean": values.mean(0),
        "std": values.std(0),
        "max": values.max(0),
        "min": values.min(0),
        "q01": np.quantile(values, 0.01, axis=0),
        "q99": np.quantile(values, 0.99, axis=0),
    }
    return {name: [float(value) for value in row] for name, row in rows.items()}
