"""What export may be asked, told from a checkpoint's facts alone, so that long work can ask before
it begins.
"""

from __future__ import annotations

from qvla_offline.checkpoints.io import Checkpoint
from qvla_offline.robot import RobotDescription
from qvla_ros.errors import QvlaError

COMPUTE_DTYPES = ("float32", "float16")


def require_exportable(
    checkpoint: Checkpoint,
    robot: RobotDescription,
    compute_dtype: str,
    tile: int,
    ensemble: bool,
    guessed: bool,
) -> None:
    """QvlaError if export_bundle would refuse these of its options for this checkpoint, opened
    lazily or not.
    """
    if compute_dtype not in COMPUTE_DTYPES:
        raise QvlaError(
            "compute_dtype", compute_dtype, f"one of {list(COMPUTE_DTYPES)}", "use float32"
        )
    if tile < 1:
        raise QvlaError("tile", tile, "a number of rows from 1 on", "use 8; 1 promotes no row")
    if ensemble and checkpoint.config.decoding.kind != "univla":
        raise QvlaError(
            "ensemble",
            f"asked of {checkpoint.family}",
            "a UniVLA checkpoint",
            "leave out --ensemble",
        )
    if guessed and checkpoint.family == "openvla-oft":
        raise QvlaError(
            "guessed", f"asked of {checkpoint.family}", "OpenVLA or UniVLA", "leave out --guessed"
        )
    action_dim = checkpoint.config.decoding.action_dim
    if len(robot.actions.names) != action_dim:
        found = f"{len(robot.actions.names)} entries"
        wanted = f"{action_dim}, as the checkpoint has"
        fix = "describe the robot that the policy was trained on with --robot_path"
        raise QvlaError("robot actions.names", found, wanted, fix)
