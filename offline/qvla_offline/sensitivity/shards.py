"""Action scores on several workers: each takes some of the samples, all of the probes.

What each sample adds comes back by itself and is added in the order of the samples, so the result
has the same bytes as that of one process. Weight errors are made by every worker again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.sensitivity.action import Probing, added, effects_by_sample
from qvla_offline.sensitivity.inputs import scoring_inputs
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.workers.worker import Worker
from qvla_ros.errors import QvlaWarning


@dataclass(frozen=True)
class Shard:
    """Samples `first` to `stop`, less 1, of a run. Paths are absolute, for workers elsewhere."""

    checkpoint: Path
    calibration: Path
    options: SensitivityOptions
    first: int
    stop: int
    threads: int


def spread_effects(
    checkpoint: Path,
    calibration: Path,
    options: SensitivityOptions,
    samples: int,
    workers: Sequence[Worker],
) -> dict[str, Tensor]:
    """The sums of `squared_effects` over all samples: {module reached: float32 [R, bits]}."""
    shards = [
        Shard(
            checkpoint.resolve(),
            calibration.resolve(),
            _absolute(options),
            index * samples // len(workers),
            (index + 1) * samples // len(workers),
            torch.get_num_threads(),
        )
        for index in range(len(workers))
    ]
    busy = [(worker, s) for worker, s in zip(workers, shards, strict=True) if s.first < s.stop]
    with ThreadPoolExecutor(len(busy)) as threads:
        jobs = [threads.submit(worker.call, score_shard, shard) for worker, shard in busy]
        parts: list[Mapping[str, Tensor]] = [job.result() for job in jobs]
    return {name: added([row for part in parts for row in part[name]]) for name in parts[0]}


def score_shard(shard: Shard) -> dict[str, Tensor]:
    """What `effects_by_sample` gives, in a worker process."""
    options = shard.options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QvlaWarning)  # the process that asked has shown them
        inputs = scoring_inputs(shard.checkpoint, shard.calibration, options, None)
    torch.set_num_threads(shard.threads)  # their number is part of the last bits
    return effects_by_sample(
        inputs.policy,
        inputs.targets,
        inputs.samples[shard.first : shard.stop],
        shard.first,
        options.scheme,
        Probing(options.bits, options.probes, options.seed),
        inputs.statistics or NO_STATISTICS,
    )


def _absolute(options: SensitivityOptions) -> SensitivityOptions:
    """The options with their paths as they are from everywhere; a robot may be named instead."""

    def resolved(path: str | None) -> str | None:
        return path if path is None or not Path(path).exists() else str(Path(path).resolve())

    return replace(
        options, statistics=resolved(options.statistics), robot_path=resolved(options.robot_path)
    )
