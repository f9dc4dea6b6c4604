"""Trains the scales and biases of a checkpoint's layers: from paths to the finished file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qvla_offline.calibration import calibration_sha256, read_calibration
from qvla_offline.checkpoints.io import Checkpoint, load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.error.held_out import batches
from qvla_offline.gates import Gates, match_layers
from qvla_offline.quantization.quantizer import NO_STATISTICS, LayerStatistics, quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.stored_statistics import statistics_for
from qvla_offline.quantization.trained_scales import (
    TrainedScales,
    sources_of,
    write_trained_scales,
)
from qvla_offline.robot import LIBERO, read_robot
from qvla_offline.sensitivity.hessian import flat_weight
from qvla_offline.sensitivity.inputs import suit_threads
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.prepare import prepared
from qvla_offline.training.lent_weights import TOGETHER, LentWeights
from qvla_offline.training.memory import require_memory
from qvla_offline.training.options import TrainingOptions
from qvla_offline.training.train import Trained, train
from qvla_offline.training.trainable import TrainableLayer
from qvla_ros.errors import QvlaError
from qvla_ros.progress import track


def train_scales(
    checkpoint_path: Path,
    gates: Gates,
    calibration_path: Path,
    out_path: Path,
    options: TrainingOptions,
    data: SensitivityOptions,
) -> Trained:
    """Trains every layer that is quantized and executed, and writes `out_path`.

    data: scheme and statistics, and how to read the calibration samples. The whole policy is in
    memory, in float32; QvlaError naming the memory if it does not fit.
    """
    require_memory(checkpoint_path, data.device)
    checkpoint = load_checkpoint(checkpoint_path, data.unnorm_key, device=data.device)
    model = checkpoint.model
    suit_threads(model)
    targets = quantization_targets(model)
    gates = match_layers(gates, {name: m.weight.shape[0] for name, m in targets.items()})
    statistics = statistics_for(data.scheme, data.statistics, checkpoint_path)
    samples = _samples(checkpoint, calibration_path, options, data)
    layers = trainable_layers(model, gates, data.scheme, statistics or NO_STATISTICS)
    count = max(1, round(len(samples) * options.validation_share))
    seen = len(samples) - count
    trained = train(
        layers,
        LentWeights(model, layers, samples, options.block_weight),
        batches(samples[:seen], TOGETHER),
        range(seen, len(samples)),
        options,
    )
    read = calibration_sha256(calibration_path, options.max_samples, data.skip_bad_lines)
    settings = asdict(options) | {
        "calibration_sha256": read,
        "samples": len(samples),
        "step": trained.step,
        "validation_errors": {str(step): error for step, error in trained.errors.items()},
    }
    sources = sources_of(checkpoint_path, gates.layers, data.scheme, statistics)
    write_trained_scales(out_path, TrainedScales(trained.layers, sources, settings))
    return trained


def _samples(
    checkpoint: Checkpoint,
    path: Path,
    options: TrainingOptions,
    data: SensitivityOptions,
) -> list[PolicyInputs]:
    robot = LIBERO if data.robot_path is None else read_robot(data.robot_path)
    read = read_calibration(path, checkpoint, options.max_samples, data.skip_bad_lines, robot)
    if len(read) < 2:
        raise QvlaError(
            "calibration",
            f"{path}: {len(read)} observation",
            "2 or more: some to train on, others for validation",
            "record more, or raise max_samples",
        )
    return prepared(checkpoint.model, [sample.to(data.device) for sample in read])


def trainable_layers(
    model: VisionLanguageModel,
    gates: Gates,
    scheme: QuantizationScheme,
    statistics: Mapping[str, LayerStatistics],
) -> dict[str, TrainableLayer]:
    """Quantizes every layer that is executed, with the bits of the gates: {module: layer}.

    QvlaError if none of them has scales.
    """
    idle = unexecuted_targets(model) | set(gates.not_executed)
    targets = {n: m for n, m in quantization_targets(model).items() if n not in idle}
    layers = {}
    for name, module in track(targets.items(), "quantizing", total=len(targets)):
        weight = flat_weight(module)
        row_bits: np.ndarray = gates.layers[name]
        found = quantize_layer(weight, row_bits, scheme, f"{name}.weight", statistics.get(name))
        layers[name] = TrainableLayer(found, has_bias=module.bias is not None)
    if not any(layer.factors for layer in layers.values()):
        raise QvlaError(
            "gates",
            "no row of 2, 4 or 8 bits in a layer that runs",
            "rows with scales, which can be trained",
            "give some of them, or leave training out",
        )
    return layers
