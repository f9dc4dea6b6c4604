"""From paths to what is scored: the policy, its layers and the calibration samples."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import BlockWeights
from qvla_offline.calibration import not_among, read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.targets import QuantizableLayer, quantization_targets
from qvla_offline.quantization.quantizer import require_rows_alone
from qvla_offline.quantization.stored_statistics import StoredStatistics, statistics_for
from qvla_offline.robot import LIBERO, read_robot
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.prepare import prepared
from qvla_ros.errors import QvlaError, QvlaWarning

EXACT_SAMPLES = (
    8  # exact measurement averages over so many samples: one forward pass each per channel
)
SMALL_MODEL = 50_000_000  # weights
FEW = 8  # observations; below this number scores and statistics say little of others


class NoUnseenSamples(QvlaError):
    """The calibration set holds no sample behind those that are scored."""


@dataclass(frozen=True)
class Inputs:
    """A policy to score, its layers and the calibration samples.

    The policy's weights are read block by block; the samples are on its device. statistics: those
    that the scheme's quantizer needs; None if it needs none.
    """

    policy: Blockwise
    targets: dict[str, QuantizableLayer]
    samples: list[PolicyInputs]
    statistics: StoredStatistics | None = None


def load_inputs(
    checkpoint_path: Path,
    calib_jsonl: Path,
    options: SensitivityOptions,
    folder: Path | None = None,
    unseen: int = 0,
) -> Inputs:
    """Loads the policy and its calibration samples.

    unseen: so many samples that a run with these options does not read, in place of those it reads.
    folder: for activations that exceed the memory (None: the system's temporary one). Of memory_gb,
    half is for weights that stay and half for activations.
    """
    robot = LIBERO if options.robot_path is None else read_robot(options.robot_path)
    checkpoint = load_checkpoint(
        checkpoint_path, options.unnorm_key, device=options.device, lazily=True
    )
    suit_threads(checkpoint.model)
    half = options.memory_gb * 1e9 / 2
    weights = BlockWeights(checkpoint.model, checkpoint.tensors, options.device, kept_bytes=half)
    policy = Blockwise(checkpoint.model.smooth_actions, weights, half, folder)
    read = partial(
        read_calibration,
        calib_jsonl,
        checkpoint,
        skip_bad_lines=options.skip_bad_lines,
        robot=robot,
    )
    samples = read(max_samples=options.max_samples)
    if unseen:
        samples = _unseen(read(max_samples=options.max_samples + unseen), samples, calib_jsonl)
    if len(samples) < FEW:
        warnings.warn(
            f"calibration: {calib_jsonl} gives {len(samples)}, expected {FEW} or more: what so few "
            "show may be theirs alone; record more, or raise --max_samples",
            QvlaWarning,
            stacklevel=2,
        )
    with policy.filled_on_demand():
        samples = prepared(checkpoint.model, [sample.to(options.device) for sample in samples])
    return Inputs(policy, quantization_targets(checkpoint.model), samples)


def _unseen(
    samples: list[PolicyInputs], seen: list[PolicyInputs], path: Path
) -> list[PolicyInputs]:
    """Returns those of `samples` that are not among `seen`; NoUnseenSamples if there is none."""
    found = not_among(samples, seen)
    if not found:
        raise NoUnseenSamples(
            "measured_samples",
            f"{path}, whose {len(seen)} samples were all scored",
            "samples behind the scored ones",
            "record more, score fewer with --max_samples, or set measured_samples to 0",
        )
    return found


def scoring_inputs(
    checkpoint_path: Path,
    calib_jsonl: Path,
    options: SensitivityOptions,
    folder: Path | None,
    unseen: int = 0,
) -> Inputs:
    """As load_inputs, with the statistics that the quantizer needs, which are checked first."""
    statistics = None
    if options.method == "action":  # the released proxy quantizes as their scripts do
        require_rows_alone(options.scheme)
        statistics = statistics_for(options.scheme, options.statistics, checkpoint_path)
    inputs = load_inputs(checkpoint_path, calib_jsonl, options, folder, unseen)
    return replace(inputs, statistics=statistics)


def suit_threads(model: torch.nn.Module) -> None:
    """Uses one thread for a small policy, unless OMP_NUM_THREADS is set.

    Its matrices gain little from a second thread and lose tenfold when other processes share the
    cores (measured).
    """
    if (
        "OMP_NUM_THREADS" not in os.environ
        and sum(p.numel() for p in model.parameters()) < SMALL_MODEL
    ):
        torch.set_num_threads(1)


def spread(samples: list[PolicyInputs], most: int = EXACT_SAMPLES) -> list[PolicyInputs]:
    """Returns `most` of the samples at even distances, or all if there are fewer."""
    count = min(most, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]
