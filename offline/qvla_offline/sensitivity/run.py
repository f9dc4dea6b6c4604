"""Scores a checkpoint directory on calibration data: from paths to the finished file."""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import BlockWeights
from qvla_offline.calibration import calibration_sha256, read_calibration, sample_sha256
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.targets import QuantizableLayer, quantization_targets
from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.quantization.quantizer import NO_STATISTICS, require_rows_alone
from qvla_offline.quantization.stored_statistics import StoredStatistics, statistics_for
from qvla_offline.robot import LIBERO, read_robot, robot_file
from qvla_offline.sensitivity.action import PartialSums, Probing, action_scores
from qvla_offline.sensitivity.exact import (
    Agreement,
    agreement,
    look_up,
    measured_scores,
    stratified_choices,
    top_channels,
)
from qvla_offline.sensitivity.hessian import columns, hessian_scores
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.prepare import prepared
from qvla_offline.sensitivity.store import (
    Sensitivity,
    read_sensitivity,
    side_file,
    write_sensitivity,
)
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError, QvlaWarning

EXACT_SAMPLES = (
    8  # exact measurement averages over so many samples: one forward pass each per channel
)
SMALL_MODEL = 50_000_000  # weights
FEW = 8  # observations; below this number scores and statistics say little of others


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


@dataclass(frozen=True)
class _Run:
    """One scoring run. empty: the result without its scores."""

    inputs: Inputs
    empty: Sensitivity
    out_path: Path
    options: SensitivityOptions
    resume: bool


def compute_sensitivity(
    checkpoint_path: Path,
    calib_jsonl: Path,
    out_path: Path,
    options: SensitivityOptions,
    resume: bool = False,
) -> tuple[Sensitivity, Agreement | None]:
    """Scores every target layer and writes `out_path`.

    Returns the scores and, if asked for, how well they agree with exact measurement.
    """
    inputs = scoring_inputs(checkpoint_path, calib_jsonl, options, Path(out_path).parent)
    sources = {
        "checkpoint_sha256": checkpoint_sha256(checkpoint_path),
        "calibration_sha256": calibration_sha256(
            calib_jsonl, options.max_samples, options.skip_bad_lines
        ),
    }
    if options.robot_path is not None:
        sources["robot_sha256"] = sha256_of(robot_file(options.robot_path))
    if inputs.statistics is not None:
        sources["statistics_sha256"] = inputs.statistics.sha256
    empty = Sensitivity(
        options.method,
        options.bits,
        {},
        {name: columns(module) for name, module in inputs.targets.items()},
        (),
        sources,
        {**options.identity(), "samples": len(inputs.samples)},
    )
    score = _action if options.method == "action" else _hessian
    sensitivity = score(_Run(inputs, empty, out_path, options, resume))
    report = None
    if options.check:
        report = check(inputs, sensitivity, options)
        settings = sensitivity.settings | {"agreement": asdict(report)}
        sensitivity = replace(sensitivity, settings=settings)
    write_sensitivity(out_path, sensitivity)
    return sensitivity, report


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
    """Returns those of `samples` that are not among `seen`; QvlaError if there is none."""
    known = {sample_sha256(sample) for sample in seen}
    found = [sample for sample in samples if sample_sha256(sample) not in known]
    if not found:
        raise QvlaError(
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


def check(inputs: Inputs, sensitivity: Sensitivity, options: SensitivityOptions) -> Agreement:
    """Compares the estimate with exact measurement on `options.check` channels.

    They are spread over ranks and bit-widths.
    """
    executed = sensitivity.executed()
    choices = stratified_choices(executed, sensitivity.bits, options.check, options.seed)
    some = spread(inputs.samples)
    statistics = inputs.statistics or NO_STATISTICS
    scheme = options.scheme
    measured = measured_scores(inputs.policy, inputs.targets, some, choices, scheme, statistics)
    involved = {
        name: inputs.targets[name] for name in dict.fromkeys(name for name, _, _ in choices)
    }
    probing = _probing(options)
    same, _ = action_scores(inputs.policy, involved, some, scheme, probing, statistics=statistics)
    same_samples = look_up(
        {name: score.numpy() for name, score in same.items()}, options.bits, choices
    )
    return agreement(choices, look_up(executed, sensitivity.bits, choices), measured, same_samples)


def spread(samples: list[PolicyInputs], most: int = EXACT_SAMPLES) -> list[PolicyInputs]:
    """Returns `most` of the samples at even distances, or all if there are fewer."""
    count = min(most, len(samples))
    return [samples[index * len(samples) // count] for index in range(count)]


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


def _probing(options: SensitivityOptions) -> Probing:
    return Probing(options.bits, options.probes, options.seed)


def _action(run: _Run) -> Sensitivity:
    options = run.options
    targets = run.inputs.targets
    empty = run.empty
    fingerprint = value_sha256([empty.settings, empty.sources])
    partial = PartialSums(_partial_path(run.out_path), fingerprint, run.resume)
    policy = run.inputs.policy
    samples = run.inputs.samples
    scheme = options.scheme
    statistics = run.inputs.statistics or NO_STATISTICS
    tensors, unreached = action_scores(
        policy, targets, samples, scheme, _probing(options), partial, statistics
    )
    scores = {name: tensor.numpy() for name, tensor in tensors.items()}
    sensitivity = replace(empty, scores=scores, not_executed=unreached)
    if options.refine:
        choices = top_channels(sensitivity.executed(), options.bits, options.refine)
        some = spread(samples)
        measured = measured_scores(policy, targets, some, choices, scheme, statistics)
        position = {bits: index for index, bits in enumerate(options.bits)}
        for (name, channel, bits), value in zip(choices, measured, strict=True):
            scores[name][position[bits], channel] = value
    write_sensitivity(run.out_path, sensitivity)
    partial.remove()
    return sensitivity


def _hessian(run: _Run) -> Sensitivity:
    options = run.options
    targets = run.inputs.targets
    empty = run.empty
    partial = _partial_path(run.out_path)
    earlier = None
    if run.resume:
        earlier = _earlier(partial if partial.is_file() else run.out_path, empty)
    finished = {} if earlier is None else dict(earlier.scores)
    unreached = [] if earlier is None else list(earlier.not_executed)
    remaining = {name: module for name, module in targets.items() if name not in finished}
    for group in hessian_scores(
        run.inputs.policy, remaining, run.inputs.samples, options.bits, options.percdamp
    ):
        finished |= {name: scores.numpy() for name, (scores, _) in group.items()}
        unreached += [name for name, (_, reached) in group.items() if not reached]
        ordered = {name: finished[name] for name in targets if name in finished}
        write_sensitivity(partial, replace(empty, scores=ordered, not_executed=tuple(unreached)))
    whole = {name: finished[name] for name in targets}
    sensitivity = replace(empty, scores=whole, not_executed=tuple(unreached))
    write_sensitivity(run.out_path, sensitivity)
    partial.unlink(missing_ok=True)
    return sensitivity


def _partial_path(out_path: Path) -> Path:
    """The file in which a run keeps its scores until the result is whole."""
    return out_path.with_name(f"{out_path.name}.partial")


def _earlier(out_path: Path, expected: Sensitivity) -> Sensitivity | None:
    """Reads what an earlier run left in `out_path`; None if there is none.

    The earlier run must have had the same inputs and options.
    """
    if not out_path.is_file():
        return None
    earlier = read_sensitivity(out_path)
    if (earlier.bits, earlier.sources, earlier.settings) != (
        expected.bits,
        expected.sources,
        expected.settings,
    ):
        found = (
            "of another run"
            if earlier.sources
            else f"without {side_file(out_path).name}, which says its inputs"
        )
        raise QvlaError(
            "resume",
            f"{out_path} {found} (bits {list(earlier.bits)})",
            f"the same checkpoint, calibration and options (bits {list(expected.bits)})",
            "delete the file or run without --resume",
        )
    return earlier
