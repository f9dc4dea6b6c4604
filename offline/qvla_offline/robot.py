"""Describes the robot that a policy was trained on, which its checkpoint does not.

The default is LIBERO's arm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_ros.bundle import ActionSpec, CameraSpec, GripperConvention, ProprioceptionSpec
from qvla_ros.control.action_kinds import action_kind
from qvla_ros.control.setpoint import ANGLES, LENGTHS
from qvla_ros.errors import QvlaError
from qvla_ros.simulation import specification as libero
from qvla_ros.strict_json import parse
from qvla_ros.yaml_file import read_yaml

if TYPE_CHECKING:
    from qvla_offline.checkpoints.io import Checkpoint

# Units of what is not in m and rad: one number of each action, whose size the node is told.
OTHER_UNITS = ("controller_unit", "opening_fraction")
IMAGE_SIZE = 256  # LIBERO's released evaluation renders at this size


@dataclass(frozen=True)
class RobotCamera:
    """A camera by its topic's name; height and width in pixels, as published."""

    name: str
    height: int
    width: int
    rotate_180: bool


@dataclass(frozen=True)
class RobotActions:
    """See qvla_ros.bundle.ActionSpec; chunk length and normalisation come from the checkpoint."""

    names: tuple[str, ...]
    kind: str
    frame: str
    units: tuple[str, ...]
    gripper_index: int | None
    gripper_convention: GripperConvention | None
    control_period_s: float
    limits: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class RobotDescription:
    """Cameras, image chain, and names for the numbers in and out.

    The cameras are in the order in which the policy reads them.
    jpeg_quality: of the files in which the training images were kept; the robot's images go through
    the same. center_crop_area: fraction of the pixels that the policy sees, the middle of them.
    bicubic_size: side of the square that the images are made before all that (ALOHA's: 256); none
    by default.
    """

    cameras: tuple[RobotCamera, ...]
    jpeg_quality: int | None
    center_crop_area: float | None
    proprioception: tuple[str, ...]
    actions: RobotActions
    bicubic_size: int | None = None


# The released data are JPEG files of this quality, and OpenVLA-OFT's evaluation gives its images
# the same round trip. `qvla reference demonstrations` stores its images, and training crops them,
# by these values.
LIBERO = RobotDescription(
    cameras=tuple(
        RobotCamera(name, IMAGE_SIZE, IMAGE_SIZE, rotate_180=True) for name in libero.CAMERA_NAMES
    ),
    jpeg_quality=95,
    center_crop_area=0.9,
    proprioception=libero.PROPRIOCEPTION_NAMES,
    actions=RobotActions(
        names=libero.ACTION_NAMES,
        kind=libero.ACTION_KIND,
        frame=libero.POSE_FRAME,
        units=libero.ACTION_UNITS,
        gripper_index=libero.GRIPPER_INDEX,
        gripper_convention="opening_fraction",
        control_period_s=libero.CONTROL_PERIOD_S,
        limits=libero.ACTION_LIMITS,
    ),
)


def camera_specs(checkpoint: Checkpoint, robot: RobotDescription) -> tuple[CameraSpec, ...]:
    """Returns the cameras that the policy reads: the robot's first ones, with the image chain."""
    cameras = robot.cameras[: checkpoint.config.decoding.num_images]
    return tuple(camera_spec(checkpoint, robot, camera) for camera in cameras)


def camera_spec(checkpoint: Checkpoint, robot: RobotDescription, camera: RobotCamera) -> CameraSpec:
    """Returns one camera with the robot's chain of images, for what the checkpoint's ViTs take."""
    input_size = checkpoint.config.input_size
    resize_size = checkpoint.config.resize_size
    return CameraSpec(
        **asdict(camera),
        jpeg_quality=robot.jpeg_quality,
        input_size=input_size,
        center_crop_area=robot.center_crop_area,
        normalizations=checkpoint.normalizations,
        bicubic_size=robot.bicubic_size,
        resize_size=None if resize_size == input_size else resize_size,
    )


def robot_file(path: str | Path) -> Path:
    """Returns the file that a path names: the file itself, or trained_on.yaml of a folder."""
    return Path(path) / "trained_on.yaml" if Path(path).is_dir() else Path(path)


def read_robot(path: str | Path) -> RobotDescription:
    """Reads a robot description like config/robots/libero/trained_on.yaml, or the robot's folder.

    QvlaError names what is missing, of a wrong type, or refused by the bundle's specifications. It
    comes here, and not hours later when the bundle is written.
    """
    path = robot_file(path)
    fix = "write it after the example config/robots/libero/trained_on.yaml"
    content = read_yaml(path, "robot_path", fix)
    robot: RobotDescription = parse(RobotDescription, content, str(path), fix)
    try:
        _check_values(robot)
    except QvlaError as error:
        leaf = error.key.rpartition(".")[2]
        # the image chain is written once, for all cameras
        key = leaf if leaf in content else error.key
        raise QvlaError(
            f"{path}: {key}", error.value, error.expected, f"correct it there, or {fix}"
        ) from None
    return robot


def _check_values(robot: RobotDescription) -> None:
    """Raises QvlaError for values that no bundle may have.

    The values that a checkpoint gives are filled in for the check.
    """
    for camera in robot.cameras:
        CameraSpec(
            **asdict(camera),
            jpeg_quality=robot.jpeg_quality,
            input_size=1,
            center_crop_area=robot.center_crop_area,
            normalizations=(((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),),
            bicubic_size=robot.bicubic_size,
        )
    names = [camera.name for camera in robot.cameras]
    if not names or len(set(names)) < len(names):
        raise QvlaError("cameras", names, "distinct names, at least one camera", "name them")
    if robot.proprioception:  # not every policy reads it
        ProprioceptionSpec(robot.proprioception, "q99")
    action_kind(robot.actions.kind)
    actions = ActionSpec(**asdict(robot.actions), chunk_length=1, normalization="q99")
    _check_units(actions)


def _check_units(actions: ActionSpec) -> None:
    """Raises QvlaError for units that the node would refuse on the robot, or misread.

    A pose has three lengths and three angles; a joint has either. One number, which the node is
    told, says how large a unit of another kind is, for all columns of a kind.
    """
    columns = [index for index in range(len(actions.units)) if index != actions.gripper_index]
    groups = [(columns, LENGTHS | ANGLES)]
    if action_kind(actions.kind).moves == "pose":
        if len(columns) != 6:
            named = [actions.names[index] for index in columns]
            expected = "six beside the gripper's: a translation and a rotation vector"
            raise QvlaError("actions.names", named, expected, "describe what the policy commands")
        groups = [(columns[:3], LENGTHS), (columns[3:], ANGLES)]
    for members, units in groups:
        others = [index for index in members if actions.units[index].lower() not in units]
        unknown = [index for index in others if actions.units[index] not in OTHER_UNITS]
        if unknown or 0 < len(others) < len(members):
            index = (unknown or others)[0]
            found = f"{actions.units[index]!r} for {actions.names[index]}"
            expected = f"one of {', '.join(sorted(units))}, or {OTHER_UNITS[0]} for all of its kind"
            raise QvlaError(
                "actions.units",
                found,
                expected,
                f"write {OTHER_UNITS[0]}; the node's linear_scale and angular_scale say its size",
            )
