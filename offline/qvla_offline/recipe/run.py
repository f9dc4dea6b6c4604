"""The steps of a recipe in their order, and the summary of their results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvla_offline.allocation import Measuring, choose_gates
from qvla_offline.calibration import calibration_sha256
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.export.exportable import require_exportable
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_offline.gates import read_gates, write_gates
from qvla_offline.gates.assign import describe
from qvla_offline.gates.foresight import require_affordable
from qvla_offline.gates.measured import require_measurable
from qvla_offline.layer_statistics.run import compute_statistics
from qvla_offline.option_fields import step_values
from qvla_offline.quantization.containers import require_storable
from qvla_offline.quantization.quantizer import quantizer_of, require_plain_inputs
from qvla_offline.quantization.scheme import QuantizationScheme, require_exact_scales
from qvla_offline.quantization.stored_statistics import TENSORS, StoredStatistics
from qvla_offline.recipe.recipe import TRAINED_SCALES, ResolvedRecipe, resolve_recipe
from qvla_offline.recipe.steps import RecipeStep, Steps
from qvla_offline.sensitivity.run import compute_sensitivity
from qvla_offline.sensitivity.store import read_sensitivity
from qvla_offline.summary import quantization_summary
from qvla_offline.training.memory import require_memory
from qvla_offline.training.options import TrainingOptions
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError

ERROR_FILE = "error.json"


def run_recipe(path: str | Path, out_dir: str | Path | None = None) -> Path:
    """Runs every step of the recipe that is not up to date.

    Returns the output directory, which holds summary.json.
    """
    recipe = resolve_recipe(path, out_dir)
    _require_later_steps(recipe)
    steps = Steps(recipe.out)
    for step in _steps_of(recipe):
        steps.run(step)
    _write_summary(recipe, steps.seconds())
    return recipe.out


def _require_later_steps(recipe: ResolvedRecipe) -> None:
    """Raises QvlaError for what gates or export would refuse, before the hours of scoring."""
    asked = recipe.asked
    if asked.statistics is not None and not _needs_statistics(recipe):
        raise QvlaError(
            "statistics",
            f"a section, with quantizer {recipe.scheme.quantizer}",
            "none: that quantizer reads no statistics",
            "set statistics: null, or scheme: {quantizer: guided_gptq}",
        )
    if asked.bundle:
        require_exact_scales(recipe.scheme, recipe.export.compute_dtype)
        require_storable(recipe.budget.every_width(), recipe.scheme)
        require_plain_inputs(recipe.scheme)
    checkpoint = load_checkpoint(recipe.checkpoint, asked.unnorm_key, lazily=True)
    if asked.bundle or asked.float_bundle:
        require_exportable(checkpoint, recipe.robot, recipe.export)
    if asked.training is not None and not asked.training.by_block:
        require_memory(recipe.checkpoint, recipe.scoring.device)
    method = recipe.scoring.method
    bits = recipe.scoring.bits
    rounds = asked.gates.joint_rounds
    require_measurable(asked.gates.measured_samples or 0, recipe.budget)
    require_affordable(checkpoint.model, recipe.budget, recipe.scheme, method, bits, rounds)


def _steps_of(recipe: ResolvedRecipe) -> list[RecipeStep]:
    """Returns the steps that the recipe asks for, in the order in which they need one another."""
    asked = recipe.asked
    weights = checkpoint_sha256(recipe.checkpoint)
    exported = [weights, asked.unnorm_key, step_values(recipe.export), recipe.robot_sha256]
    scores = _score(recipe, weights)
    gates = _choose_bits(recipe, scores.target)
    bundle = _export_quantized(recipe, exported, gates.target)
    steps = [scores, gates]
    if asked.training is not None:
        steps.append(_train_scales(recipe, weights, gates.target, asked.training))
    if _needs_statistics(recipe):
        steps.insert(0, _gather(recipe, weights))
    if asked.bundle:
        steps.append(bundle)
    if asked.float_bundle:
        steps.append(_export_float(recipe, exported))
    if asked.fakequant:
        final = bundle.target / "gates.json" if asked.bundle else gates.target
        steps.append(_fake_quantize(recipe, weights, final))
    if recipe.error.max_samples:
        last = bundle if asked.bundle else gates
        steps.append(_measure_error(recipe, last))
    return steps


def _needs_statistics(recipe: ResolvedRecipe) -> bool:
    return bool(quantizer_of(recipe.scheme).needs)


def _statistics_sha256(recipe: ResolvedRecipe) -> list[str]:
    """Returns the hash of the statistics, for the inputs of a step; nothing if none are needed."""
    return [StoredStatistics(recipe.statistics).sha256] if _needs_statistics(recipe) else []


def _gather(recipe: ResolvedRecipe, weights_sha256: str) -> RecipeStep:
    options = recipe.gathering

    def inputs() -> list[Any]:
        read = calibration_sha256(recipe.calibration, options.max_samples, options.skip_bad_lines)
        gathered = [options.max_samples, options.probes, options.seed, options.unnorm_key]
        return [weights_sha256, read, *gathered, recipe.robot_sha256, *TENSORS]

    def make(target: Path, resume: bool) -> None:
        compute_statistics(recipe.checkpoint, recipe.calibration, target, options)

    return RecipeStep("statistics", recipe.statistics, inputs, make)


def _score(recipe: ResolvedRecipe, weights_sha256: str) -> RecipeStep:
    def inputs() -> list[Any]:
        options = recipe.scoring
        read = calibration_sha256(recipe.calibration, options.max_samples, options.skip_bad_lines)
        described = options.described()
        statistics = _statistics_sha256(recipe)
        return [weights_sha256, read, described, recipe.robot_sha256, *statistics]

    def make(target: Path, resume: bool) -> None:
        compute_sensitivity(recipe.checkpoint, recipe.calibration, target, recipe.scoring, resume)

    return RecipeStep("sensitivity", recipe.out / "sensitivity.safetensors", inputs, make)


def _choose_bits(recipe: ResolvedRecipe, scores: Path) -> RecipeStep:
    scheme = recipe.scheme
    rounds = recipe.asked.gates.joint_rounds
    measured = recipe.asked.gates.measured_samples

    def inputs() -> list[Any]:
        asked = [sha256_of(scores), step_values(recipe.budget), scheme.described(), rounds]
        return (
            asked if measured == 0 else [*asked, measured, calibration_sha256(recipe.calibration)]
        )

    def make(target: Path, resume: bool) -> None:
        sources = {"sensitivity_sha256": sha256_of(scores)}
        place = Measuring(recipe.checkpoint, recipe.calibration, recipe.scoring, target.parent)
        sensitivity = read_sensitivity(scores)
        gates = choose_gates(sensitivity, recipe.budget, scheme, sources, place, rounds, measured)
        print(describe(gates))
        write_gates(target, gates)

    return RecipeStep("gates", recipe.out / "gates.json", inputs, make)


def _train_scales(
    recipe: ResolvedRecipe, weights_sha256: str, gates: Path, options: TrainingOptions
) -> RecipeStep:
    def inputs() -> list[Any]:
        data = recipe.scoring
        read = calibration_sha256(recipe.calibration, options.max_samples, data.skip_bad_lines)
        made_of = [weights_sha256, read, sha256_of(gates), recipe.scheme.described()]
        asked = [step_values(options), data.unnorm_key, recipe.robot_sha256]
        return [*made_of, *asked, *_statistics_sha256(recipe)]

    def make(target: Path, resume: bool) -> None:
        from qvla_offline.training.run import train_scales

        train_scales(
            recipe.checkpoint,
            read_gates(gates),
            recipe.calibration,
            target,
            options,
            recipe.scoring,
        )

    return RecipeStep("trained_scales", recipe.out / TRAINED_SCALES, inputs, make)


def _trained_sha256(recipe: ResolvedRecipe) -> list[str]:
    """Returns the hash of the trained scales, for the inputs of a step; nothing if there are none.

    Steps of recipes without training stay up to date.
    """
    return [] if recipe.trained_scales is None else [sha256_of(recipe.trained_scales)]


def _export_quantized(recipe: ResolvedRecipe, exported: list[Any], gates: Path) -> RecipeStep:
    return RecipeStep(
        "bundle",
        recipe.out / "bundle",
        lambda: [
            *exported,
            sha256_of(gates),
            recipe.scheme.described(),
            *_statistics_sha256(recipe),
            *_trained_sha256(recipe),
        ],
        lambda target, _: _export(recipe, gates, target, recipe.scheme),
    )


def _export_float(recipe: ResolvedRecipe, exported: list[Any]) -> RecipeStep:
    return RecipeStep(
        "float_bundle",
        recipe.out / "float_bundle",
        lambda: exported,
        lambda target, _: _export(recipe, None, target, None),
    )


def _export(
    recipe: ResolvedRecipe, gates: Path | None, target: Path, scheme: QuantizationScheme | None
) -> None:
    from qvla_offline.export.bundle import export_bundle

    options = replace(recipe.export, tile=None)  # the gates have filled the groups, if any has
    unnorm_key = recipe.asked.unnorm_key
    export_bundle(
        recipe.checkpoint,
        gates,
        target,
        scheme,
        options,
        recipe.robot,
        unnorm_key,
        statistics_dir=recipe.statistics,
        trained_scales=None if gates is None else recipe.trained_scales,
    )


def _fake_quantize(recipe: ResolvedRecipe, weights_sha256: str, gates: Path) -> RecipeStep:
    def make(target: Path, resume: bool) -> None:
        import torch

        from qvla_offline.fakequant import fake_quantize

        fake_quantize(
            recipe.checkpoint,
            read_gates(gates),
            target,
            recipe.scheme,
            dtype=None if dtype is None else getattr(torch, dtype),
            statistics_dir=recipe.statistics,
            trained_scales=recipe.trained_scales,
        )

    dtype = recipe.asked.fakequant_dtype
    return RecipeStep(
        "fakequant",
        recipe.out / "fakequant",
        lambda: [
            weights_sha256,
            sha256_of(gates),
            recipe.scheme.described(),
            *_statistics_sha256(recipe),
            *([] if dtype is None else [dtype]),
            *_trained_sha256(recipe),
        ],
        make,
    )


def _measure_error(recipe: ResolvedRecipe, result: RecipeStep) -> RecipeStep:
    def inputs() -> list[Any]:
        asked = recipe.error
        read = [calibration_sha256(recipe.calibration)]
        if asked.observations is not None:
            read.append(calibration_sha256(recipe.folder / asked.observations))
        return [result.inputs(), read, asked.max_samples]

    def make(target: Path, resume: bool) -> None:
        from qvla_offline.recipe.measured_error import measure_error

        measure_error(recipe, target, _needs_statistics(recipe))

    return RecipeStep("error", recipe.out / ERROR_FILE, inputs, make)


def _write_summary(recipe: ResolvedRecipe, seconds: dict[str, float]) -> None:
    bundle = recipe.out / "bundle" if recipe.asked.bundle else None
    sensitivity = read_sensitivity(recipe.out / "sensitivity.safetensors")
    gates = read_gates(recipe.out / "gates.json")
    measured = {}
    if recipe.error.max_samples:
        measured = json.loads((recipe.out / ERROR_FILE).read_text(encoding="utf-8"))
    summary = quantization_summary(sensitivity, gates, bundle, seconds, measured)
    with atomic_file(recipe.out / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
