"""A recipe: the keys of its YAML file, and what they mean on this disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from qvla_offline.checkpoints.directory import is_hub_id, require_checkpoint
from qvla_offline.error.options import Measurement
from qvla_offline.export.options import DEFAULT_OPTIONS, ExportOptions
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.layer_statistics.options import Gathering
from qvla_offline.option_fields import option
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.scheme import COMPENSATING, QuantizationScheme
from qvla_offline.robot import LIBERO, RobotDescription, read_robot, robot_file
from qvla_offline.sensitivity.options import Scoring, SensitivityOptions
from qvla_offline.training.options import TrainingOptions
from qvla_ros.bundle import sha256_of
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse
from qvla_ros.yaml_file import read_yaml

STATISTICS = "statistics"
TRAINED_SCALES = "trained_scales.safetensors"
_FIX = "compare with config/quantize/reference.yaml"


@dataclass(frozen=True)
class RecipeScheme(QuantizationScheme):
    """A recipe's section `scheme`.

    Its quantizer compensates where none is named: a recipe gathers what that takes.
    """

    quantizer: str = option(COMPENSATING, f"one of {', '.join(QUANTIZERS)}")

    def plain(self) -> QuantizationScheme:
        """The same scheme as the other steps have it."""
        return QuantizationScheme(**asdict(self))


@dataclass(frozen=True)
class Recipe:
    """A recipe: what to quantize, how, and what to leave in `out_dir`.

    bundle/ is written unless `bundle` is false; fakequant/ (the checkpoint with the bundle's
    numbers, rounded to its own types unless fakequant_dtype is float32) and float_bundle/ (float16
    weights, the baseline) when asked for. statistics/ is made if the scheme's quantizer needs it;
    statistics: None gathers as `sensitivity` scores. training: None trains no scales. error.json
    holds the action error of the result, on observations that no other step reads.
    """

    checkpoint: str
    calibration: str
    out_dir: str
    gates: GatesOptions
    statistics: Gathering | None = None
    sensitivity: Scoring | None = None
    scheme: RecipeScheme | None = None
    training: TrainingOptions | None = None
    export: ExportOptions | None = None
    error: Measurement | None = None
    robot: str | None = None
    unnorm_key: str | None = None
    bundle: bool = True
    float_bundle: bool = False
    fakequant: bool = False
    fakequant_dtype: Literal["float32"] | None = None


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe; an unknown or missing key or a wrong type is a QvlaError that names it."""
    content = read_yaml(Path(path), "recipe", _FIX)
    name = Path(path).name
    _require_sections(content, name)
    return parse(Recipe, content, name, _FIX)


def _require_sections(content: Any, name: str) -> None:
    """Raises QvlaError with file and section for a value that a section refuses."""
    kinds = get_type_hints(Recipe)
    for section, values in content.items() if isinstance(content, dict) else ():
        if section not in kinds or not isinstance(values, dict):
            continue
        place = f"{name}.{section}"
        try:
            parse(kinds[section], values, place, _FIX)
        except QvlaError as error:
            if error.key.startswith(place):
                raise
            key = f"{place}.{error.key.removeprefix(f'{section}.')}"
            fix = f"in section {section}: {error.fix.replace('--', '')}"  # no command line here
            raise QvlaError(key, error.value, error.expected, fix) from None


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with its paths resolved, its files read and its defaults filled in.

    asked: the recipe as it is written. folder: its own, to which its paths are relative.
    robot_sha256: of the robot's description; None for LIBERO's arm, which has no file. gathering:
    how to make the statistics, if the quantizer needs any.
    """

    asked: Recipe
    folder: Path
    checkpoint: Path
    calibration: Path
    out: Path
    robot: RobotDescription
    robot_sha256: str | None
    gathering: SensitivityOptions
    scoring: SensitivityOptions
    budget: Budget
    export: ExportOptions
    error: Measurement

    @property
    def scheme(self) -> QuantizationScheme:
        """How weights are stored; scoring, gates and export share it."""
        return self.scoring.scheme

    @property
    def statistics(self) -> Path:
        """The directory of the statistics, if the quantizer needs any."""
        return self.out / STATISTICS

    @property
    def trained_scales(self) -> Path | None:
        """The file of trained scales; None if none are asked for."""
        return None if self.asked.training is None else self.out / TRAINED_SCALES


def resolve_recipe(path: str | Path, out_dir: str | Path | None = None) -> ResolvedRecipe:
    """Reads the recipe at `path` and the files that it names.

    out_dir: replaces the recipe's. QvlaError if the robot or the checkpoint is not there.
    """
    asked = read_recipe(path)
    folder = Path(path).resolve().parent
    robot = None if asked.robot is None else robot_file(folder / asked.robot)
    described = LIBERO if robot is None else read_robot(robot)
    checkpoint = folder / asked.checkpoint
    hub = is_hub_id(asked.checkpoint) and not checkpoint.parent.exists()
    require_checkpoint(Path(asked.checkpoint) if hub else checkpoint, f"{path}: checkpoint")
    out = Path(out_dir) if out_dir is not None else folder / asked.out_dir
    scoring = SensitivityOptions(
        **asdict(asked.sensitivity or Scoring()),
        unnorm_key=asked.unnorm_key,
        robot_path=None if robot is None else str(robot),
        statistics=str(out / STATISTICS),
        scheme=(asked.scheme or RecipeScheme()).plain(),
    )
    export = asked.export or DEFAULT_OPTIONS
    return ResolvedRecipe(
        asked=asked,
        folder=folder,
        checkpoint=checkpoint,
        calibration=folder / asked.calibration,
        out=out,
        robot=described,
        robot_sha256=None if robot is None else sha256_of(robot),
        gathering=replace(scoring, **asdict(asked.statistics)) if asked.statistics else scoring,
        scoring=scoring,
        budget=asked.gates.budget(export.compute_dtype, scoring.bits, export.tile),
        export=export,
        error=asked.error or Measurement(),
    )
