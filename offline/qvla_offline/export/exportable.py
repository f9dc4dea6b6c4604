"""Checks the options of export against a checkpoint, before the hours of scoring."""

from __future__ import annotations

from qvla_offline.checkpoints.family import families
from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.export.options import ExportOptions
from qvla_offline.option_fields import require_choices
from qvla_offline.robot import RobotDescription
from qvla_ros.errors import QvlaError


def require_exportable(
    checkpoint: Checkpoint, robot: RobotDescription, options: ExportOptions
) -> None:
    """Raises the QvlaError with which export_bundle would refuse these options.

    The checkpoint may be opened lazily or not.
    """
    require_choices(options)
    if options.tile is not None and options.tile < 1:
        raise QvlaError(
            "tile", options.tile, "a number of rows from 1 on", "use 8; 1 promotes no row"
        )
    for name in sorted({name for family in families().values() for name in family.export_options}):
        if getattr(options, name) and name not in checkpoint.family.export_options:
            takers = [f.title for f in families().values() if name in f.export_options]
            raise QvlaError(
                name,
                f"true for a checkpoint of {checkpoint.family.title}",
                f"a checkpoint of {' or '.join(takers)}",
                f"leave {name} out",
            )
    action_dim = checkpoint.config.decoding.action_dim
    if len(robot.actions.names) != action_dim:
        found = f"{len(robot.actions.names)} entries"
        wanted = f"{action_dim}, as the checkpoint has"
        fix = "describe the robot that the policy was trained on with --robot_path"
        raise QvlaError("robot actions.names", found, wanted, fix)


def require_own_bits(tile: int | None, trained_scales: object) -> None:
    """Raises QvlaError if rows would be promoted whose scales were trained at other bits."""
    if trained_scales is not None and tile not in (None, 1):
        raise QvlaError(
            "tile",
            f"{tile} with trained scales",
            "none: promoted rows have other codes than those that were trained for",
            "give --tile to `qvla gates` instead, and train the scales for its gates",
        )
