"""Finds the topics of a bag that hold what a policy reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.messages.kinds import COMPRESSED_IMAGE, IMAGE, JOINTS, POSE, TEXT
from qvla_ros.observation import POSE_NAMES, joint_names
from qvla_ros.strict_json import parse
from qvla_ros.yaml_file import read_yaml

EXAMPLE = "config/calibration/ros2_bag.yaml"


@dataclass(frozen=True)
class BagSource:
    """A ROS 2 bag and the topics in it that a policy reads; the defaults are the policy node's.

    cameras: the policy's camera -> topic (raw or compressed). joint_names: name in the policy's
    proprioception -> name in JointState, where they differ. pose_frame: frame_id of the poses, if
    not the one of the robot's description. instruction: for the whole bag, instead of a topic.
    max_spread_s: how far apart the stamps of one observation may lie.
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


@dataclass(frozen=True)
class ObservationNames:
    """The names of what a policy observes.

    cameras: in the policy's order. proprioception: its numbers, empty if it reads none. pose_frame:
    the frame of its poses.
    """

    cameras: tuple[str, ...]
    proprioception: tuple[str, ...]
    pose_frame: str


@dataclass(frozen=True)
class InputTopics:
    """The topics of a bag that a policy needs.

    Joints, pose and instruction are None if it needs none.
    """

    cameras: tuple[str, ...]
    joints: str | None
    pose: str | None
    instruction: str | None

    def stamped(self) -> list[str]:
        """The topics whose messages have a stamp."""
        return [*self.cameras, *filter(None, (self.joints, self.pose))]


def find_topics(
    types: Mapping[str, str],
    path: Path,
    source: BagSource,
    inputs: ObservationNames,
    among: Collection[str] | None = None,
) -> InputTopics:
    """Finds the topics of `inputs` in a bag with these `types` (topic -> type).

    A relative name may stand in any one namespace. path: the bag's, for messages. among: only these
    topics, if any of them fits the name. QvlaError lists the topics of the right type.
    """
    bag = _BagTopics(types, path, among or ())
    has_joints = bool(joint_names(inputs.proprioception))
    has_pose = any(name in POSE_NAMES for name in inputs.proprioception)
    has_text = source.instruction is None
    # In this order, so that the first topic that is missing is a camera's.
    cameras = tuple(bag.find_camera(camera, source) for camera in inputs.cameras)
    joints = bag.find("joint_states", (source.joint_states,), (JOINTS,)) if has_joints else None
    pose = bag.find("ee_pose", (source.ee_pose,), (POSE,)) if has_pose else None
    text = (source.instruction_topic,)
    return InputTopics(
        cameras=cameras,
        joints=joints,
        pose=pose,
        instruction=bag.find("instruction_topic", text, (TEXT,)) if has_text else None,
    )


@dataclass(frozen=True)
class _BagTopics:
    """The topics of a bag. types: topic -> type; among: those that are preferred."""

    types: Mapping[str, str]
    path: Path
    among: Collection[str]

    def find(self, key: str, names: Sequence[str], kinds: tuple[str, ...]) -> str:
        """The one topic that has the first of `names` that any topic has; its type is in `kinds`.

        key: of BagSource, for the message of the QvlaError.
        """
        named = ([topic for topic in self.types if _is_called(topic, name)] for name in names)
        found = next(filter(None, named), [])
        found = [topic for topic in found if topic in self.among] or found
        fitting = [topic for topic, kind in self.types.items() if kind in kinds]
        if len(found) != 1 or found[0] not in fitting:
            got = ", ".join(f"{topic} ({self.types[topic]})" for topic in found) or "no such topic"
            present = ", ".join(fitting) or "none; it has " + ", ".join(sorted(self.types))
            expected = f"one topic of type {' or '.join(kinds)}: {present}"
            fix = f"name the topic as {key} in a YAML file like {EXAMPLE}, and pass that file"
            raise QvlaError(f"{self.path}: {names[0]}", got, expected, fix)
        return found[0]

    def find_camera(self, camera: str, source: BagSource) -> str:
        """The topic of a camera's images, raw or compressed."""
        usual = f"camera/{camera}/image_raw"
        named = (source.cameras or {}).get(camera)
        names = [usual, f"{usual}/compressed"] if named is None else [named]
        used = [name for name in names if any(_is_called(topic, name) for topic in self.among)]
        return self.find(f"cameras.{camera}", used or names, (IMAGE, COMPRESSED_IMAGE))


def _is_called(topic: str, name: str) -> bool:
    return topic == name or (name[:1] != "/" and topic.endswith(f"/{name}"))


def find_bag(path: Path) -> tuple[Path, BagSource]:
    """The bag at `path`, or the one that the YAML file at `path` describes, and its description."""
    if path.suffix not in (".yaml", ".yml"):
        if not path.exists():
            fix = "name a bag's directory, its .mcap or .db3 file, or a YAML file about it"
            raise QvlaError("bag", path, "a file or directory that exists", fix)
        return path, BagSource(str(path))
    return read_description(path, {"ros2_bag": BagSource}, "a YAML file about a ROS 2 bag")


def read_description(path: Path, kinds: Mapping[str, Any], expected: str) -> tuple[Path, Any]:
    """Reads the YAML file at `path`, which describes a recording: its path and its description.

    kinds: key that holds the recording's path -> dataclass of the description; the file has one of
    these keys.
    """
    fix = "write it after the examples in config/calibration/"
    content = read_yaml(path, path.name, fix, expected)
    named = [kind for kind in kinds if isinstance(content, dict) and kind in content]
    if len(named) != 1:
        found = f"{len(named)} of the keys {' and '.join(kinds)}"
        raise QvlaError(str(path), found, "one: the path of the recording", fix)
    source = parse(kinds[named[0]], content, path.name, fix)
    root = path.parent / content[named[0]]
    if not root.exists():
        raise QvlaError(
            f"{path.name}.{named[0]}", root, "a path relative to the YAML file", "correct it"
        )
    return root, source
