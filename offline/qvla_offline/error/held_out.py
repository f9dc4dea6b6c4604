"""Observations for measuring error, which no step of the quantization may have read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qvla_offline.calibration import read_calibration, sample_sha256
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.datasets import jsonl_reader
from qvla_offline.datasets.sources import find_source
from qvla_offline.robot import LIBERO, RobotDescription
from qvla_ros.errors import QvlaError, QvlaWarning

FEW = 32  # observations; below this number an interval says little
EPISODE_KEYS = ("suite", "task_id", "episode")


@dataclass(frozen=True)
class HeldOut:
    """Observations to measure on, as batches of one.

    episodes: the episode of each sample; None if not known.
    """

    path: Path
    samples: list[PolicyInputs]
    episodes: list[Hashable] | None


def read_held_out(
    path: Path,
    checkpoint: Checkpoint,
    max_samples: int | None = None,
    robot: RobotDescription = LIBERO,
) -> HeldOut:
    """Reads the observations of a JSONL file, LeRobot dataset or ROS 2 bag.

    All are read unless `max_samples` is given. A line of a JSONL file may name its "suite",
    "task_id" and "episode"; if every line names an episode, the episodes are known. Raises
    QvlaError for whatever is wrong in the file.
    """
    samples = read_calibration(path, checkpoint, max_samples, robot=robot)
    episodes: list[Hashable] | None = None
    if find_source(path) is None:
        records = [json.loads(line) for _, line in jsonl_reader.lines(path)][: len(samples)]
        if all("episode" in record for record in records):
            episodes = [tuple(record.get(key) for key in EPISODE_KEYS) for record in records]
    if not samples:
        fix = "name a file that holds some with --observations"
        raise QvlaError("observations", f"{path}: none", f"{FEW} or more", fix)
    if len(samples) < FEW:
        warnings.warn(
            f"observations: {path} has {len(samples)}, expected {FEW} or more: the interval of so "
            "few says little; record more, or raise --max_samples",
            QvlaWarning,
            stacklevel=2,
        )
    return HeldOut(path, samples, episodes)


def require_unseen(
    held_out: HeldOut, calibration: Iterable[PolicyInputs], calibration_path: Path
) -> None:
    """Raises QvlaError if one of the observations is among those of `calibration`."""
    known = {sample_sha256(sample) for sample in calibration}
    seen = [i for i, sample in enumerate(held_out.samples) if sample_sha256(sample) in known]
    if seen:
        raise QvlaError(
            "observations",
            f"{len(seen)} of {len(held_out.samples)} observations of {held_out.path} that are also "
            f"in {calibration_path}, first number {seen[0] + 1}",
            "observations that no step of the quantization has read",
            "name others with --observations, or take these lines out of one of the files",
        )


def batches(samples: Sequence[PolicyInputs], most: int) -> list[list[int]]:
    """Groups the numbers of samples with prompts of equal length, at most `most` together."""
    by_length: dict[int, list[int]] = {}
    for index, sample in enumerate(samples):
        by_length.setdefault(sample.input_ids.shape[1], []).append(index)
    return [
        same[start : start + most]
        for same in by_length.values()
        for start in range(0, len(same), most)
    ]
