"""Measures the error of gates on calibration samples: which samples, and how the policy is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.sensitivity.inputs import scoring_inputs, spread
from qvla_offline.sensitivity.joint import joint_errors
from qvla_offline.sensitivity.options import SensitivityOptions

JOINT_SAMPLES = 16


def joint_measure(
    checkpoint_path: Path,
    calib_jsonl: Path,
    options: SensitivityOptions,
    folder: Path | None = None,
) -> Callable[[Mapping[str, np.ndarray]], tuple[dict[int, float], float]]:
    """Makes the measurement for assign_jointly, on JOINT_SAMPLES of the calibration samples.

    See load_inputs.
    """
    inputs = scoring_inputs(checkpoint_path, calib_jsonl, options, folder)
    some = spread(inputs.samples, JOINT_SAMPLES)

    def measure(layers: Mapping[str, np.ndarray]) -> tuple[dict[int, float], float]:
        targets = {name: inputs.targets[name] for name in layers}
        statistics = inputs.statistics or NO_STATISTICS
        return joint_errors(inputs.policy, targets, some, layers, options.scheme, statistics)

    return measure


def unseen_measure(
    checkpoint_path: Path,
    calib_jsonl: Path,
    options: SensitivityOptions,
    count: int,
    folder: Path | None = None,
) -> tuple[Callable[[Mapping[str, np.ndarray]], float], int]:
    """Makes the measurement for keep_best, on `count` calibration samples behind the scored ones.

    Returns it and the number of samples, which is smaller where the set holds no more.
    """
    inputs = scoring_inputs(checkpoint_path, calib_jsonl, options, folder, count)

    def measure(layers: Mapping[str, np.ndarray]) -> float:
        targets = {name: inputs.targets[name] for name in layers}
        statistics = inputs.statistics or NO_STATISTICS
        policy = inputs.policy
        scheme = options.scheme
        _, whole = joint_errors(
            policy, targets, inputs.samples, layers, scheme, statistics, by_bits=False
        )
        return whole

    return measure, len(inputs.samples)
