"""The options of export, and a check of them that long work can make before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_offline.checkpoints.family import families
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.robot import RobotDescription
from qvla_ros.errors import QvlaError

COMPUTE_DTYPES = ("float32", "float16")
NOISE_SEED = 7  # of what is drawn at run time; the released evaluations set all seeds to 7


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle's graph is written; see export_bundle."""

    compute_dtype: str = "float32"
    tile: int = 8
    ensemble: bool = False
    guessed: bool = False


DEFAULT_OPTIONS = ExportOptions()


def require_exportable(
    checkpoint: Checkpoint, robot: RobotDescription, options: ExportOptions
) -> None:
    """QvlaError if export_bundle would refuse these options for this checkpoint, opened lazily or
    not.
    """
    if options.compute_dtype not in COMPUTE_DTYPES:
        raise QvlaError(
            "compute_dtype", options.compute_dtype, f"one of {list(COMPUTE_DTYPES)}", "use float32"
        )
    if options.tile < 1:
        raise QvlaError(
            "tile", options.tile, "a number of rows from 1 on", "use 8; 1 promotes no row"
        )
    for name in sorted({name for family in families().values() for name in family.export_options}):
        if getattr(options, name) and name not in checkpoint.family.export_options:
            takers = [f.title for f in families().values() if name in f.export_options]
            raise QvlaError(
                name,
                f"asked of {checkpoint.family.name}",
                f"a checkpoint of {' or '.join(takers)}",
                f"leave out --{name}",
            )
    action_dim = checkpoint.config.decoding.action_dim
    if len(robot.actions.names) != action_dim:
        found = f"{len(robot.actions.names)} entries"
        wanted = f"{action_dim}, as the checkpoint has"
        fix = "describe the robot that the policy was trained on with --robot_path"
        raise QvlaError("robot actions.names", found, wanted, fix)
