"""Scores a checkpoint directory on calibration data: from paths to the finished file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from qvla_offline.calibration import calibration_sha256
from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.robot import robot_file
from qvla_offline.sensitivity.action import PartialSums, Probing, action_scores, scores_of
from qvla_offline.sensitivity.exact import (
    Agreement,
    agreement,
    look_up,
    measured_scores,
    stratified_choices,
    top_channels,
)
from qvla_offline.sensitivity.hessian import columns, hessian_scores
from qvla_offline.sensitivity.inputs import Inputs, scoring_inputs, spread
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.shards import spread_effects
from qvla_offline.sensitivity.store import (
    Sensitivity,
    read_sensitivity,
    side_file,
    write_sensitivity,
)
from qvla_offline.workers.worker import Worker
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class _Run:
    """One scoring run of `checkpoint` on `calibration`. empty: the result without its scores."""

    checkpoint: Path
    calibration: Path
    inputs: Inputs
    empty: Sensitivity
    out_path: Path
    options: SensitivityOptions
    resume: bool
    workers: Sequence[Worker]


def compute_sensitivity(
    checkpoint_path: Path,
    calib_jsonl: Path,
    out_path: Path,
    options: SensitivityOptions,
    resume: bool = False,
    workers: Sequence[Worker] = (),
) -> tuple[Sensitivity, Agreement | None]:
    """Scores every target layer and writes `out_path`.

    Returns the scores and, if asked for, how well they agree with exact measurement. workers: share
    the samples of method action; the result is the same. None: all is done in this process.
    """
    if workers:
        _require_shareable(options, resume)
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
    run = _Run(checkpoint_path, calib_jsonl, inputs, empty, out_path, options, resume, workers)
    sensitivity = score(run)
    report = None
    if options.check:
        report = check(inputs, sensitivity, options)
        settings = sensitivity.settings | {"agreement": asdict(report)}
        sensitivity = replace(sensitivity, settings=settings)
    write_sensitivity(out_path, sensitivity)
    return sensitivity, report


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
    if run.workers:
        tensors, unreached = _spread_scores(run)
    else:
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


def _spread_scores(run: _Run) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """As action_scores, on the run's workers."""
    targets = run.inputs.targets
    count = len(run.inputs.samples)
    sums = spread_effects(run.checkpoint, run.calibration, run.options, count, run.workers)
    reached = [name for name in targets if name in sums]
    return scores_of(sums, reached, targets, _probing(run.options), count)


def _require_shareable(options: SensitivityOptions, resume: bool) -> None:
    """Raises QvlaError for what workers cannot do."""
    if options.method != "action":
        fix = "leave out --workers and --ray, or use --method action"
        raise QvlaError("workers", f"with method {options.method}", "method action", fix)
    if resume:
        expected = "no --resume: workers keep nothing of an interrupted run"
        raise QvlaError("workers", "with --resume", expected, "leave out one of the two")


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
