"""Trains the scales and biases of a checkpoint's layers: from paths to the finished file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.calibration import calibration_sha256, read_calibration
from qvla_offline.checkpoints.io import empty_policy, load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs, VisionLanguageModel
from qvla_offline.checkpoints.targets import (
    QuantizableLayer,
    quantization_targets,
    unexecuted_targets,
)
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
from qvla_offline.sensitivity.inputs import load_inputs, suit_threads
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.prepare import prepared
from qvla_offline.training.by_block import train_by_block
from qvla_offline.training.lent_weights import TOGETHER, LentWeights
from qvla_offline.training.memory import require_memory
from qvla_offline.training.options import TrainingOptions
from qvla_offline.training.train import Trained, train
from qvla_offline.training.trainable import TrainableLayer
from qvla_ros.errors import QvlaError
from qvla_ros.progress import track

WHOLE = "whole policy"


@dataclass(frozen=True)
class Layers:
    """How the layers that are to be trained are made."""

    gates: Gates
    scheme: QuantizationScheme
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)

    def executed(self, model: VisionLanguageModel) -> dict[str, QuantizableLayer]:
        """{module: layer} of the layers of `model` that run; QvlaError if none has scales."""
        idle = unexecuted_targets(model) | set(self.gates.not_executed)
        targets = {n: m for n, m in quantization_targets(model).items() if n not in idle}
        if not any(set(self.gates.layers[name].tolist()) - {0, 16} for name in targets):
            raise QvlaError(
                "gates",
                "no row of 2 to 8 bits in a layer that runs",
                "rows with scales, which can be trained",
                "give some of them, or leave training out",
            )
        return targets

    def quantized(self, name: str, module: QuantizableLayer) -> TrainableLayer:
        """The layer `name`, whose weight is in `module`, with the bits of the gates."""
        weight = flat_weight(module)
        statistics = self.statistics.get(name)
        bits = self.gates.layers[name]
        layer = quantize_layer(weight, bits, self.scheme, f"{name}.weight", statistics)
        return TrainableLayer(layer, has_bias=module.bias is not None)


def train_scales(
    checkpoint_path: Path,
    gates: Gates,
    calibration_path: Path,
    out_path: Path,
    options: TrainingOptions,
    data: SensitivityOptions,
) -> TrainedScales:
    """Trains every layer that is quantized and executed, and writes `out_path`.

    data: scheme and statistics, and how to read the calibration samples. Unless it is trained by
    block, the whole policy is in memory, in float32; QvlaError naming the memory if it does not
    fit.
    """
    statistics = statistics_for(data.scheme, data.statistics, checkpoint_path)
    read = replace(data, max_samples=options.max_samples)

    def layers_of(model: VisionLanguageModel) -> Layers:
        rows = {n: m.weight.shape[0] for n, m in quantization_targets(model).items()}
        return Layers(match_layers(gates, rows), data.scheme, statistics or NO_STATISTICS)

    if options.by_block:
        inputs = load_inputs(checkpoint_path, calibration_path, read, out_path.parent)
        model = empty_policy(checkpoint_path)
        layers = layers_of(model)
        samples = inputs.samples
        steps = _by_block(inputs.policy, inputs.targets, model, samples, layers, options)
    else:
        require_memory(checkpoint_path, data.device)
        model, samples = _whole_policy(checkpoint_path, calibration_path, read)
        layers = layers_of(model)
        steps = {WHOLE: _as_a_whole(model, samples, layers, options)}
    calibration = calibration_sha256(calibration_path, options.max_samples, data.skip_bad_lines)
    settings = asdict(options) | {
        "calibration_sha256": calibration,
        "samples": len(samples),
        "kept": {name: one.step for name, one in steps.items()},
        "validation_errors": {name: one.errors for name, one in steps.items()},
    }
    trained = TrainedScales(
        {name: layer for one in steps.values() for name, layer in one.layers.items()},
        sources_of(checkpoint_path, layers.gates.layers, data.scheme, statistics),
        settings,
    )
    _print_outcome(steps)
    write_trained_scales(out_path, trained)
    return trained


def _whole_policy(
    checkpoint_path: Path, calibration_path: Path, data: SensitivityOptions
) -> tuple[VisionLanguageModel, list[PolicyInputs]]:
    """The policy with all its weights in memory, and the calibration samples, prepared."""
    checkpoint = load_checkpoint(checkpoint_path, data.unnorm_key, device=data.device)
    suit_threads(checkpoint.model)
    robot = LIBERO if data.robot_path is None else read_robot(data.robot_path)
    samples = read_calibration(
        calibration_path, checkpoint, data.max_samples, data.skip_bad_lines, robot
    )
    moved = [sample.to(data.device) for sample in samples]
    return checkpoint.model, prepared(checkpoint.model, moved)


def _as_a_whole(
    model: VisionLanguageModel,
    samples: Sequence[PolicyInputs],
    layers: Layers,
    options: TrainingOptions,
) -> Trained:
    validation = validation_of(samples, options)
    targets = layers.executed(model)
    trainable = {
        name: layers.quantized(name, module)
        for name, module in track(targets.items(), "quantizing", total=len(targets))
    }
    lent = LentWeights(model, trainable, samples, options.block_weight)
    groups = batches(samples[: validation.start], TOGETHER)
    return train(trainable, lent, groups, validation, options)


def _by_block(
    policy: Blockwise,
    modules: Mapping[str, QuantizableLayer],
    model: VisionLanguageModel,
    samples: Sequence[PolicyInputs],
    layers: Layers,
    options: TrainingOptions,
) -> dict[str, Trained]:
    targets = {name: modules[name] for name in layers.executed(model)}
    validation = validation_of(samples, options)
    return train_by_block(policy, targets, layers.quantized, samples, validation, options)


def validation_of(samples: Sequence[PolicyInputs], options: TrainingOptions) -> range:
    """The numbers of the samples that train nothing, the last ones; QvlaError if there is one."""
    if len(samples) < 2:
        raise QvlaError(
            "calibration",
            f"{len(samples)} observation",
            "2 or more: some to train on, others for validation",
            "record more, or raise max_samples",
        )
    count = round(len(samples) * options.validation_share)
    return range(len(samples) - min(max(1, count), len(samples) - 1), len(samples))


def _print_outcome(steps: Mapping[str, Trained]) -> None:
    for name, one in steps.items():
        before = one.errors[0]
        after = one.errors[one.step]
        print(f"{name}: validation error {before:.3e}, at step {one.step} {after:.3e}")
