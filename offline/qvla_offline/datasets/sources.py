"""Finds a recording and the names in it, from a path or from a YAML file that describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qvla_offline.datasets.lerobot_layout import INFO
from qvla_offline.visible_files import visible_files
from qvla_ros.errors import QvlaError
from qvla_ros.recording.source import BagSource, read_description

_KINDS = (
    "a .jsonl file, a LeRobot dataset directory, a ROS 2 bag, or a YAML file about "
    "one of the two latter"
)
_FIX = "write it after the examples in config/calibration/"


@dataclass(frozen=True)
class LeRobotSource:
    """A LeRobot dataset and the features of it that the policy reads.

    cameras: the policy's camera -> feature, by default `observation.images.<camera>`.
    state_dimensions: which numbers of `state` are the policy's proprioception, in its order; by
    default all. rotate_180: cameras whose images are upside down in the dataset; the field stores
    them upright. instruction: for every frame, instead of its task.
    """

    lerobot: str
    cameras: dict[str, str] | None = None
    state: str = "observation.state"
    state_dimensions: tuple[int, ...] | None = None
    rotate_180: tuple[str, ...] = ()
    instruction: str | None = None


def find_source(path: Path) -> tuple[Path, LeRobotSource | BagSource] | None:
    """Finds the dataset or bag that `path` is or describes.

    Returns its place and its description; None for any other file.
    """
    if path.is_dir() and (path / INFO).is_file():
        return path, LeRobotSource(str(path))
    if path.is_dir() and (
        (path / "metadata.yaml").is_file() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))
    ):
        return path, BagSource(str(path))
    if path.is_dir():
        raise QvlaError(
            "calibration",
            f"{path}, a directory with neither {INFO} nor metadata.yaml",
            _KINDS,
            _FIX,
        )
    if path.suffix in (".mcap", ".db3", ".bag"):
        return path, BagSource(str(path))
    if path.suffix not in (".yaml", ".yml"):
        return None
    return read_description(path, {"lerobot": LeRobotSource, "ros2_bag": BagSource}, _KINDS)


def source_files(path: Path, root: Path) -> list[Path]:
    """Lists the files that a reading of `path` may depend on. root: what find_source returned."""
    return [*([path] if path != root else []), *(visible_files(root) if root.is_dir() else [root])]
