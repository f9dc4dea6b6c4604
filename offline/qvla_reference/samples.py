"""Makes training samples of recorded episodes: the policy's view and the expert's next actions.

Every episode is decoded once into small uint8 images, which are kept with the training run, so that
a later start is quick. The images went through the robot's own functions (qvla_ros.preprocess) up
to the centre crop; their JPEG round trip was the storing in the episode file.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qvla_reference.demonstrations import CAMERAS, Demonstration, read_episode
from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import lanczos3_resize, rotate_180


@dataclass(frozen=True)
class TrainingSamples:
    """N observations with their chunks, in SI units.

    Actions are in the dataset convention (gripper 0 closed, 1 open).
    """

    images: np.ndarray  # uint8 [N, cameras, S, S, 3], upright
    proprio: np.ndarray  # float32 [N, 8]
    chunks: np.ndarray  # float32 [N, 8, 7]
    object_from_eef_m: np.ndarray  # float32 [N, 3], world axes; for the auxiliary loss
    goal_from_eef_m: np.ndarray  # float32 [N, 3]
    task: np.ndarray  # int64 [N], index into `tasks` of the set

    def __len__(self) -> int:
        return len(self.images)

    def part(self, index: int, count: int) -> TrainingSamples:
        """Returns every `count`-th sample from `index` on."""
        return TrainingSamples(
            **{
                field.name: getattr(self, field.name)[index::count]
                for field in fields(TrainingSamples)
            }
        )


def proprio_of(episode: Demonstration) -> np.ndarray:
    """Returns the released state vector of every step, float32 [T, 8].

    It holds position, axis-angle and two finger positions.
    """
    series = episode.series
    rotations = np.stack(
        [quaternion_to_axis_angle(quaternion) for quaternion in series["eef_quaternion_xyzw"]]
    )
    return np.concatenate(
        [series["eef_position_m"], rotations, series["gripper_positions_m"]], axis=1
    ).astype(np.float32)


def dataset_actions(simulator_actions: np.ndarray) -> np.ndarray:
    """Converts simulator actions [..., 7] to the dataset convention.

    The gripper goes from -1 open, +1 close to 1 open, 0 closed.
    """
    return np.concatenate(
        [simulator_actions[..., :-1], (1.0 - simulator_actions[..., -1:]) / 2.0], axis=-1
    )


def decode_episode(episode: Demonstration, size: int) -> TrainingSamples:
    """Makes the samples of one episode, `task` all zero; images are resized to `size`."""
    steps = episode.image_steps
    images = np.zeros((len(steps), len(CAMERAS), size, size, 3), np.uint8)
    for index in range(len(steps)):
        for view, camera in enumerate(CAMERAS):
            images[index, view] = lanczos3_resize(rotate_180(episode.image(camera, index)), size)
    chunks = np.stack([episode.action_chunk(index) for index in range(len(steps))])
    eef = episode.series["eef_position_m"][steps]
    return TrainingSamples(
        images=images,
        proprio=proprio_of(episode)[steps],
        chunks=dataset_actions(chunks).astype(np.float32),
        object_from_eef_m=episode.series["object_position_m"][steps] - eef,
        goal_from_eef_m=episode.series["goal_position_m"][steps] - eef,
        task=np.zeros(len(steps), np.int64),
    )


class DemonstratedTask(NamedTuple):
    """The task of an episode.

    The same instruction may belong to several tasks, of other scenes or suites.
    """

    suite: str
    task_id: int
    instruction: str


class SampleSet:
    """All samples of a folder of demonstrations, in memory.

    `refresh` adds episodes that have appeared since.
    """

    def __init__(
        self, demonstrations: Path, cache: Path, size: int, select: Callable[[Path], bool]
    ) -> None:
        self.demonstrations = demonstrations
        self.cache = cache / f"{size}px"
        self.size = size
        self.select = select
        self.tasks: list[DemonstratedTask] = []
        self.episodes: list[TrainingSamples] = []
        self._known: set[Path] = set()
        self._index = np.zeros((0, 2), np.int64)  # (episode, row) of every sample
        self._weights = np.zeros(0)  # of every sample
        self._task_of_sample = np.zeros(0, np.int64)

    @property
    def instructions(self) -> list[str]:
        """Returns the text of each task."""
        return [task.instruction for task in self.tasks]

    def episode_counts(self) -> dict[str, int]:
        """Counts the episodes of each suite."""
        suites = [self.tasks[samples.task[0]].suite for samples in self.episodes]
        return {suite: suites.count(suite) for suite in sorted(set(suites))}

    def refresh(self, limit: int | None = None, workers: int = 1) -> int:
        """Decodes and adds new episodes (at most `limit`), in the order of their names.

        Returns how many were added. workers: processes that decode what the cache does not hold.
        """
        found = (path for path in self.demonstrations.rglob("episode_*.npz") if self.select(path))
        new = sorted(path for path in found if path not in self._known)[:limit]
        cached = [self.cache / path.relative_to(self.demonstrations) for path in new]
        stale = [pair for pair in zip(new, cached, strict=True) if not _is_current(*pair)]
        # a process takes as long as some episodes
        _decode_all(stale, self.size, workers if len(stale) > 8 else 1)
        for path, copy in zip(new, cached, strict=True):
            self._known.add(path)
            samples, task = _read_samples(copy)
            if len(samples) == 0:
                continue
            if task not in self.tasks:
                self.tasks.append(task)
            samples.task[:] = self.tasks.index(task)
            self.episodes.append(samples)
        if new:
            self._reindex()
        return len(new)

    def __len__(self) -> int:
        return len(self._index)

    def draw(
        self, count: int, rng: np.random.Generator, suite_weights: Mapping[str, float] | None = None
    ) -> TrainingSamples:
        """Draws `count` samples.

        A task's share grows with the root of its size, so that a task with few episodes is neither
        drowned nor learnt by heart. Within a task the samples around a grasp or release are twice
        as likely. suite_weights: a suite's share is its weight times the root of its size, however
        many tasks it has, so that a suite whose recording has just begun is not learnt by heart. A
        suite that is not named is left out.
        """
        fix = "record some with `qvla reference demonstrations`"
        if not len(self):
            raise QvlaError(
                "demonstrations", f"no episode below {self.demonstrations}", "at least one", fix
            )
        weights = self._weights
        if suite_weights is not None:
            suites = np.array([task.suite for task in self.tasks])
            factors = np.zeros(len(suites))
            for suite, share in suite_weights.items():
                of_suite = suites == suite
                members = of_suite[self._task_of_sample]
                factors[of_suite] = (
                    share * np.sqrt(members.sum()) / max(weights[members].sum(), 1e-9)
                )
            weights = weights * factors[self._task_of_sample]
            if not weights.any():
                known = ", ".join(sorted(set(suites)))
                raise QvlaError(
                    "suite_weights",
                    dict(suite_weights),
                    f"a positive weight for one of {known}",
                    fix,
                )
        cumulated = np.cumsum(weights)
        chosen = np.searchsorted(cumulated, rng.random(count) * cumulated[-1], side="right")
        return self.take(self._index[chosen])

    def take(self, pairs: Sequence[Sequence[int]] | np.ndarray) -> TrainingSamples:
        """Returns the samples at (episode, row) pairs."""
        rows = {
            field.name: np.stack(
                [getattr(self.episodes[episode], field.name)[row] for episode, row in pairs]
            )
            for field in fields(TrainingSamples)
        }
        return TrainingSamples(**rows)

    def _reindex(self) -> None:
        self._task_of_sample = np.concatenate([samples.task for samples in self.episodes])
        weights = np.concatenate([_sample_weights(samples) for samples in self.episodes])
        per_task = np.bincount(self._task_of_sample, weights)
        self._weights = weights / np.sqrt(per_task[self._task_of_sample])
        lengths = [len(samples) for samples in self.episodes]
        episode = np.repeat(np.arange(len(lengths)), lengths)
        row = np.concatenate([np.arange(length) for length in lengths])
        self._index = np.stack([episode, row], axis=1)


def _decode_all(pairs: Sequence[tuple[Path, Path]], size: int, workers: int) -> None:
    """Decodes each (episode file, cache file) pair; a tenth of a second each."""
    if workers <= 1:
        for episode, cached in pairs:
            _decode_into(episode, cached, size)
        return
    context = multiprocessing.get_context("spawn")  # a fork beside torch's threads may hang
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    try:
        jobs = [pool.submit(_decode_into, episode, cached, size) for episode, cached in pairs]
        for job in concurrent.futures.as_completed(jobs):
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_into(path: Path, cached: Path, size: int) -> None:
    episode = read_episode(path)
    samples = decode_episode(episode, size)
    arrays = {field.name: getattr(samples, field.name) for field in fields(TrainingSamples)}
    facts = {name: np.array(episode.facts[name]) for name in DemonstratedTask._fields}
    with atomic_file(cached) as temporary:
        np.savez(temporary, **facts, **arrays)


def _is_current(path: Path, cached: Path) -> bool:
    if not cached.exists() or cached.stat().st_mtime < path.stat().st_mtime:
        return False
    with np.load(cached, allow_pickle=False) as archive:
        return {
            *DemonstratedTask._fields,
            *(field.name for field in fields(TrainingSamples)),
        } <= set(archive.files)


def _read_samples(cached: Path) -> tuple[TrainingSamples, DemonstratedTask]:
    with np.load(cached, allow_pickle=False) as archive:
        samples = TrainingSamples(
            **{field.name: archive[field.name] for field in fields(TrainingSamples)}
        )
        return samples, DemonstratedTask(
            *(archive[name].item() for name in DemonstratedTask._fields)
        )


def _sample_weights(samples: TrainingSamples) -> np.ndarray:
    """Weighs a sample 2 where the gripper's command changes within the chunk, 1 elsewhere."""
    gripper = samples.chunks[..., -1]
    return 1.0 + (np.ptp(gripper, axis=1) > 0.5)


def dataset_statistics(samples: Sequence[TrainingSamples]) -> dict[str, object]:
    """Computes {"action": ..., "proprio": ...} as OpenVLA-OFT stores them.

    The gripper is left as it is (mask false, 0 to 1).
    """
    actions = np.concatenate([part.chunks[:, 0] for part in samples]).astype(np.float64)
    proprio = np.concatenate([part.proprio for part in samples]).astype(np.float64)
    action = _ranges(actions)
    action["q01"][-1] = 0.0
    action["q99"][-1] = 1.0
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
