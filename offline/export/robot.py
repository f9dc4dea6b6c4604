"""The robot that a policy was trained on, as far as its checkpoint is silent about it; LIBERO's arm unless told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from qvla_ros.bundle import GripperConvention
from qvla_ros.errors import QvlaError
from qvla_ros.simulation import specification as libero
from qvla_ros.strict_json import parse

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
    """Cameras in the order in which the policy reads them, the image chain, and names for the numbers in and out."""

    cameras: tuple[RobotCamera, ...]
    jpeg_quality: int | None
    center_crop_area: float | None
    proprioception: tuple[str, ...]
    actions: RobotActions


LIBERO = RobotDescription(
    cameras=tuple(RobotCamera(name, IMAGE_SIZE, IMAGE_SIZE, rotate_180=True) for name in libero.CAMERA_NAMES),
    jpeg_quality=None,
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


def read_robot(path: str | Path) -> RobotDescription:
    """A robot description in YAML, as config/robots/libero.yaml; QvlaError names what is missing or of a wrong type."""
    fix = "write it after the example config/robots/libero.yaml"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise QvlaError("robot_path", f"{path}: {error}", "a YAML file", fix) from None
    return parse(RobotDescription, content, str(path), fix)
