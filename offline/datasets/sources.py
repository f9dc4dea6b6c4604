"""Where a recording is and what is called how in it: found by looking at a path, or written down in a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from qvla_offline.datasets.lerobot_layout import INFO

from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse

_KINDS = "a .jsonl file, a LeRobot dataset directory, a ROS 2 bag, or a YAML file about one of the two latter"
_FIX = "write it after the examples in config/calibration/"


@dataclass(frozen=True)
class LeRobotSource:
    """A LeRobot dataset and which of its features the policy reads.

    cameras: the policy's camera -> feature, by default `observation.images.<camera>`. state_dimensions: which numbers
    of `state` are the policy's proprioception, in its order; by default all. rotate_180: cameras whose images are
    upside down in the dataset; the field stores them upright. instruction: for every frame, instead of its task.
    """

    lerobot: str
    cameras: dict[str, str] | None = None
    state: str = "observation.state"
    state_dimensions: tuple[int, ...] | None = None
    rotate_180: tuple[str, ...] = ()
    instruction: str | None = None


@dataclass(frozen=True)
class BagSource:
    """A ROS 2 bag and on which topics it has what the policy reads; by default those of the policy node.

    cameras: the policy's camera -> topic (raw or compressed). joint_names: name of the policy's proprioception -> name
    in JointState, where they differ. pose_frame: frame_id of the poses, if not the one of the robot's description.
    instruction: for the whole bag, instead of a topic. max_spread_s: how far apart the stamps of one observation lie.
    """

    ros2_bag: str
    cameras: dict[str, str] | None = None
    joint_states: str = "joint_states"
    joint_names: dict[str, str] | None = None
    ee_pose: str = "ee_pose"
    pose_frame: str | None = None
    instruction_topic: str = "instruction"
    instruction: str | None = None
    max_spread_s: float = 0.05


def find_source(path: Path) -> tuple[Path, LeRobotSource | BagSource] | None:
    """The place of the dataset or bag that `path` is or describes, and its description; None for any other file."""
    if path.is_dir() and (path / INFO).is_file():
        return path, LeRobotSource(str(path))
    if path.is_dir() and ((path / "metadata.yaml").is_file() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))):
        return path, BagSource(str(path))
    if path.is_dir():
        raise QvlaError("calibration", f"{path}, a directory with neither {INFO} nor metadata.yaml", _KINDS, _FIX)
    if path.suffix in (".mcap", ".db3"):
        return path, BagSource(str(path))
    return _described(path) if path.suffix in (".yaml", ".yml") else None


def source_files(path: Path, root: Path) -> list[Path]:
    """Every file that a reading of `path` may depend on; root: the place that find_source found."""
    files = [file for file in root.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return [*([path] if path != root else []), *(sorted(files) if root.is_dir() else [root])]


def _described(path: Path) -> tuple[Path, LeRobotSource | BagSource]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise QvlaError("calibration", f"{path}: {error}", _KINDS, _FIX) from None
    kinds = {"lerobot": LeRobotSource, "ros2_bag": BagSource}
    named = [kind for kind in kinds if isinstance(content, dict) and kind in content]
    if len(named) != 1:
        found = f"{len(named)} of the keys {' and '.join(kinds)}"
        raise QvlaError(f"calibration {path}", found, "one: the path of the recording", _FIX)
    source = parse(kinds[named[0]], content, path.name, _FIX)
    root = path.parent / content[named[0]]
    if not root.exists():
        raise QvlaError(f"{path.name}.{named[0]}", root, "a path relative to the YAML file", "correct it")
    return root, source
