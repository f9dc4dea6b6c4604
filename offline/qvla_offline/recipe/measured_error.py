"""The last step of a recipe: the action error of its result, on observations no step has read."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from qvla_offline.calibration import not_among, read_calibration
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.error.comparison import compare, require_held_out
from qvla_offline.error.held_out import HeldOut, read_held_out
from qvla_offline.error.report import table, write_report
from qvla_offline.error.subjects import Subject, Subjects
from qvla_offline.gates.options import MEASURED_SAMPLES
from qvla_offline.quantization.scheme import DEFAULT_QUANTIZER
from qvla_offline.quantization.stored_statistics import StoredStatistics
from qvla_offline.recipe.recipe import ResolvedRecipe
from qvla_offline.sensitivity.inputs import suit_threads
from qvla_ros.bundle import load_bundle
from qvla_ros.errors import QvlaWarning

BASELINE_BITS = 4
BASELINE = f"{BASELINE_BITS} bits everywhere, plain rounding"
RESULT = "this recipe"


def measure_error(recipe: ResolvedRecipe, target: Path, needs_statistics: bool) -> None:
    """Writes the report of `qvla error` on the recipe's result and on the plainest baseline.

    The result is the bundle, run by ONNX Runtime; or the gates, fake-quantized, where there is no
    bundle or its policy draws random numbers. Without observations to measure on, a warning says
    so, and the report is empty: {}.
    """
    made_by = Subjects(
        recipe.checkpoint,
        recipe.asked.unnorm_key,
        statistics=StoredStatistics(recipe.statistics) if needs_statistics else None,
        compute_dtype=recipe.export.compute_dtype,
        memory_bytes=recipe.scoring.memory_gb * 1e9,
        device=recipe.scoring.device,
    )
    checkpoint = made_by.open()
    suit_threads(checkpoint.model)
    held_out = _held_out(recipe, checkpoint)
    if held_out is None:
        target.write_text("{}\n", encoding="utf-8")
        return
    plain = replace(made_by, scheme={"quantizer": DEFAULT_QUANTIZER}, statistics=None)
    subjects = [
        _result(recipe, made_by),
        replace(plain.of_uniform(BASELINE_BITS), name=BASELINE),
    ]
    if recipe.error.observations is not None:
        require_held_out(held_out, subjects, made_by, [recipe.calibration], recipe.robot)
    measured = compare(subjects, made_by, held_out)
    print(table(measured))
    write_report(target, measured, recipe.checkpoint, held_out)


def _result(recipe: ResolvedRecipe, made_by: Subjects) -> Subject:
    bundle = recipe.out / "bundle"
    if recipe.asked.bundle and not load_bundle(bundle, verify_hashes=False).decoder.draws_noise:
        return made_by.of_bundle(RESULT, bundle)
    folder = bundle if recipe.asked.bundle else recipe.out
    return made_by.of_gates(RESULT, folder / "gates.json", recipe.trained_scales)


def _held_out(recipe: ResolvedRecipe, checkpoint: Checkpoint) -> HeldOut | None:
    """Returns the observations that the recipe names, or what it keeps of the calibration set."""
    asked = recipe.error
    if asked.observations is not None:
        path = recipe.folder / asked.observations
        return read_held_out(path, checkpoint, asked.max_samples, recipe.robot)
    kept = kept_back(recipe, checkpoint)
    if kept:
        return HeldOut(recipe.calibration, kept, None)
    warnings.warn(
        f"error: not measured, because {recipe.calibration} has no sample that the other steps "
        "leave; record more, or name observations in section error",
        QvlaWarning,
        stacklevel=2,
    )
    return None


def kept_back(recipe: ResolvedRecipe, checkpoint: Checkpoint) -> list[PolicyInputs]:
    """Returns the samples of the calibration set that no other step reads, at most max_samples."""
    compared = recipe.asked.gates.measured_samples
    behind = MEASURED_SAMPLES if compared is None else compared
    scored = recipe.scoring.max_samples
    counts = {scored, recipe.gathering.max_samples, scored + behind}
    if recipe.asked.training is not None:
        counts.add(recipe.asked.training.max_samples)

    def read(count: int) -> list[PolicyInputs]:
        return read_calibration(
            recipe.calibration, checkpoint, count, recipe.scoring.skip_bad_lines, recipe.robot
        )

    seen = (sample for count in counts for sample in read(count))
    return not_among(read(max(counts) + recipe.error.max_samples), seen)
