"""Runs all steps of a quantization from one YAML file.

They make sensitivity, gates, bundle and, if wanted, a fake-quantized checkpoint and a summary.
A step is skipped when its result exists and was made from the same inputs; `steps.json` in the
output directory holds the hashes. Paths in the YAML are relative to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qvla_offline.calibration import calibration_sha256
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.export.exportable import require_exportable
from qvla_offline.export.options import DEFAULT_OPTIONS, ExportOptions
from qvla_offline.fingerprint import checkpoint_sha256, value_sha256
from qvla_offline.gates import read_gates, write_gates
from qvla_offline.gates.assign import assign_gates, describe
from qvla_offline.gates.foresight import require_affordable
from qvla_offline.gates.joint import assign_jointly
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.memory import peak_memory
from qvla_offline.quantization.scheme import QuantizationScheme, require_exact_scales
from qvla_offline.robot import LIBERO, RobotDescription, read_robot, robot_file
from qvla_offline.sensitivity.options import Scoring, SensitivityOptions
from qvla_offline.sensitivity.run import compute_sensitivity, joint_measure
from qvla_offline.sensitivity.store import read_sensitivity
from qvla_offline.summary import quantization_summary
from qvla_ros import __version__
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse
from qvla_ros.yaml_file import read_yaml

_FIX = "compare with config/quantize/reference.yaml"


@dataclass(frozen=True)
class Recipe:
    """What to quantize, how, and what to leave in `out_dir`.

    bundle/ is written unless `bundle` is false; fakequant/ (the checkpoint with the bundle's
    numbers) and float_bundle/ (float16 weights, the baseline) when asked for.
    """

    checkpoint: str
    calibration: str
    out_dir: str
    gates: GatesOptions
    sensitivity: Scoring | None = None
    scheme: QuantizationScheme | None = None
    export: ExportOptions | None = None
    robot: str | None = None
    unnorm_key: str | None = None
    bundle: bool = True
    float_bundle: bool = False
    fakequant: bool = False


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe; an unknown or missing key or a wrong type is a QvlaError that names it."""
    return parse(Recipe, read_yaml(Path(path), "recipe", _FIX), Path(path).name, _FIX)


def run_recipe(path: str | Path, out_dir: str | Path | None = None) -> Path:
    """Runs every step of the recipe that is not up to date.

    Returns the output directory, which holds summary.json.
    """
    recipe = read_recipe(path)
    folder = Path(path).resolve().parent
    out = Path(out_dir) if out_dir is not None else folder / recipe.out_dir
    checkpoint = folder / recipe.checkpoint
    calibration = folder / recipe.calibration
    robot = None if recipe.robot is None else str(robot_file(folder / recipe.robot))
    described, robot_sha256 = (
        (LIBERO, None) if robot is None else (read_robot(robot), sha256_of(Path(robot)))
    )
    scheme = recipe.scheme or QuantizationScheme()
    export = recipe.export or DEFAULT_OPTIONS
    if not checkpoint.is_dir():
        raise QvlaError(
            "checkpoint", checkpoint, "a checkpoint directory", f"set checkpoint in {path}"
        )
    options = SensitivityOptions(
        **asdict(recipe.sensitivity or Scoring()),
        unnorm_key=recipe.unnorm_key,
        robot_path=robot,
        scheme=scheme,
    )
    rounds = recipe.gates.joint_rounds
    budget = recipe.gates.budget(export.compute_dtype, export.tile)
    _require_later_steps(recipe, checkpoint, options, budget, described)
    steps = Steps(out)
    weights = checkpoint_sha256(checkpoint)
    read = calibration_sha256(calibration, options.max_samples, options.skip_bad_lines)
    inputs = [weights, read, options.described(), robot_sha256]
    scores = steps.run(
        "sensitivity",
        out / "sensitivity.safetensors",
        inputs,
        lambda target, resume: compute_sensitivity(
            checkpoint, calibration, target, options, resume
        ),
    )
    gates_path = steps.run(
        "gates",
        out / "gates.json",
        [sha256_of(scores), asdict(budget), scheme.described(), rounds],
        lambda target, _: _write_gates(
            scores, target, budget, scheme, rounds, (checkpoint, calibration, options)
        ),
    )
    common = [weights, recipe.unnorm_key, asdict(export), robot_sha256]
    if recipe.bundle:
        exported = [*common, sha256_of(gates_path), scheme.described()]
        steps.run(
            "bundle",
            out / "bundle",
            exported,
            lambda target, _: _export(
                checkpoint, gates_path, target, scheme, export, described, recipe.unnorm_key
            ),
        )
    if recipe.float_bundle:
        steps.run(
            "float_bundle",
            out / "float_bundle",
            common,
            lambda target, _: _export(
                checkpoint, None, target, None, export, described, recipe.unnorm_key
            ),
        )
    if recipe.fakequant:
        final = out / "bundle" / "gates.json" if recipe.bundle else gates_path
        steps.run(
            "fakequant",
            out / "fakequant",
            [weights, sha256_of(final), scheme.described()],
            lambda target, _: _fake_quantize(checkpoint, final, target, scheme),
        )
    bundle = out / "bundle" if recipe.bundle else None
    summary = quantization_summary(
        read_sensitivity(scores), read_gates(gates_path), bundle, steps.seconds()
    )
    with atomic_file(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return out


def _require_later_steps(
    recipe: Recipe, path: Path, options: SensitivityOptions, budget: Budget, robot: RobotDescription
) -> None:
    """Raises QvlaError for what gates or export would refuse, before the hours of scoring."""
    scheme = options.scheme
    export = recipe.export or DEFAULT_OPTIONS
    if recipe.bundle:
        require_exact_scales(scheme, export.compute_dtype)
    checkpoint = load_checkpoint(path, recipe.unnorm_key, lazily=True)
    if recipe.bundle or recipe.float_bundle:
        require_exportable(checkpoint, robot, export)
    rounds = recipe.gates.joint_rounds
    require_affordable(checkpoint.model, budget, scheme, options.method, options.bits, rounds)


class Steps:
    """Knows which results in a directory are up to date.

    steps.json holds {step: {inputs: hash, seconds: wall time}}.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "steps.json"
        self.done: dict[str, Any] = {}
        if self.file.is_file():
            try:
                self.done = json.loads(self.file.read_text())
            except ValueError:
                print(f"{self.file} is broken; every step runs again")

    def run(
        self, name: str, target: Path, inputs: list[Any], make: Callable[[Path, bool], object]
    ) -> Path:
        """Makes `target` unless it is there and was made from equal `inputs`; returns `target`.

        make(target, resume): resume is true when an earlier run began with equal inputs and did not
        finish.
        """
        fingerprint = value_sha256([__version__, inputs])
        entry = self.done.get(name, {})
        begun = entry.get("inputs") == fingerprint
        if begun and "seconds" in entry and target.exists():
            print(f"{name}: up to date ({target})")
            return target
        print(f"{name}: {target}")
        self._note(name, {"inputs": fingerprint})
        start = time.monotonic()
        make(target, begun and "seconds" not in entry)
        print(f"{name}: {peak_memory()} so far")
        self._note(name, {"inputs": fingerprint, "seconds": round(time.monotonic() - start, 2)})
        return target

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self.done[name] = entry
        with atomic_file(self.file) as temporary:
            temporary.write_text(json.dumps(self.done, indent=1) + "\n")

    def seconds(self) -> dict[str, float]:
        """Returns the wall time that each step took when it last ran, s."""
        return {name: entry["seconds"] for name, entry in self.done.items() if "seconds" in entry}


def _write_gates(
    scores: Path,
    target: Path,
    budget: Budget,
    scheme: QuantizationScheme,
    rounds: int,
    inputs: tuple[Path, Path, SensitivityOptions],
) -> None:
    sensitivity = read_sensitivity(scores)
    sources = {"sensitivity_sha256": sha256_of(scores)}
    if rounds:
        gates = assign_jointly(
            sensitivity, budget, scheme, joint_measure(*inputs, target.parent), rounds, sources
        )
    else:
        gates = assign_gates(sensitivity, budget, scheme, sources)
    print(describe(gates))
    write_gates(target, gates)


def _export(
    checkpoint: Path,
    gates: Path | None,
    target: Path,
    scheme: QuantizationScheme | None,
    export: ExportOptions,
    robot: RobotDescription,
    unnorm_key: str | None,
) -> None:
    from qvla_offline.export.bundle import export_bundle

    options = replace(export, tile=None)  # the gates have filled the groups, if any has
    export_bundle(checkpoint, gates, target, scheme, options, robot, unnorm_key)


def _fake_quantize(checkpoint: Path, gates: Path, target: Path, scheme: QuantizationScheme) -> None:
    from qvla_offline.fakequant import fake_quantize

    fake_quantize(checkpoint, read_gates(gates), target, scheme)
