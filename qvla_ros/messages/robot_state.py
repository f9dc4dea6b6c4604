"""Reads and checks joint states and poses, and makes the setpoint that an output starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvla_ros.bundle import Bundle
from qvla_ros.control.action_kinds import action_kind
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError, quoted
from qvla_ros.observation import POSE_NAMES, joint_names
from qvla_ros.parameters.policy import CommandParameters

# Single precision and rounded text stay well within; a quaternion that was never set does not.
_UNIT_TOLERANCE = 1e-2
MAX_JOINTS = 256  # of one message: a humanoid with both hands has a third of that


@dataclass(frozen=True)
class ToolPose:
    """The end effector's position [3] and unit quaternion x, y, z, w, in the bundle's frame."""

    position_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]


@dataclass(frozen=True)
class Measured:
    """The measurements that an output needs, and how they become a Setpoint.

    joints: their positions in this order; empty: the end effector's pose. gripper_joint: the joint
    whose position is gripper_min closed and gripper_max open; empty: the gripper is not measured.
    """

    joints: tuple[str, ...] = ()
    gripper_joint: str = ""
    gripper_min: float = 0.0
    gripper_max: float = 1.0

    @property
    def joint_names(self) -> tuple[str, ...]:
        """All joints that JointState must contain."""
        return (*self.joints, *filter(None, [self.gripper_joint]))

    def setpoint(self, positions: Mapping[str, float], pose: ToolPose | None) -> Setpoint:
        """The measured setpoint; `pose` is needed unless `joints` are named."""
        gripper = None
        if self.gripper_joint:
            opening = (positions[self.gripper_joint] - self.gripper_min) / (
                self.gripper_max - self.gripper_min
            )
            gripper = min(max(opening, 0.0), 1.0)  # fingers rest a little beyond their ends
        if self.joints:
            return Setpoint(
                np.array([positions[name] for name in self.joints], np.float64), None, gripper
            )
        assert pose is not None
        linear = np.array(pose.position_m, np.float64)
        quaternion = np.array(pose.quaternion_xyzw, np.float64)
        return Setpoint(linear, quaternion, gripper)


def measured_by(parameters: CommandParameters, bundle: Bundle) -> Measured | None:
    """The measurements that the node's parameters ask for; None while nothing is commanded."""
    if parameters.output == "none":
        return None
    moves_joints = action_kind(bundle.actions.kind).moves == "joints"
    joint = parameters.gripper_joint
    closed, opened = (
        gripper_ends(parameters) if joint else (parameters.gripper_min, parameters.gripper_max)
    )
    return Measured(parameters.joints if moves_joints else (), joint, closed, opened)


def gripper_ends(parameters: CommandParameters) -> tuple[float, float]:
    """The gripper's position, or command, when closed and open; QvlaError if they are equal."""
    closed = parameters.gripper_min
    opened = parameters.gripper_max
    if closed == opened:
        fix = "set them to the gripper's positions when closed and when open"
        raise QvlaError(
            "parameters gripper_min and gripper_max",
            f"both {closed:g}",
            "two different numbers",
            fix,
        )
    return closed, opened


def needed_joints(bundle: Bundle, measured: Measured | None) -> tuple[str, ...]:
    """Joints that the policy reads, then those that the output measures, each once."""
    names = () if bundle.proprioception is None else bundle.proprioception.names
    return tuple(
        dict.fromkeys((*joint_names(names), *(() if measured is None else measured.joint_names)))
    )


def arm_joints(bundle: Bundle, measured: Measured | None) -> tuple[str, ...]:
    """Those of needed_joints that say how old a set of them is: without the gripper's, if any."""
    if measured is None:
        return needed_joints(bundle, None)
    if measured.joints:
        return measured.joints
    joints = needed_joints(bundle, measured)
    return tuple(name for name in joints if name != measured.gripper_joint)


def needs_pose(bundle: Bundle, measured: Measured | None) -> bool:
    """Whether the policy reads, or the output measures, the end effector's pose."""
    names = () if bundle.proprioception is None else bundle.proprioception.names
    return any(name in POSE_NAMES for name in names) or (
        measured is not None and not measured.joints
    )


def joint_positions(message: Any, topic: str, needed: Sequence[str]) -> dict[str, float]:
    """The positions (rad or m) by name of a sensor_msgs/JointState that has all `needed` joints.

    More joints than needed are no error: an arm's driver reports grippers and mobile bases too.
    QvlaError names the joints that are missing or not finite.
    """
    if len(message.name) > MAX_JOINTS:
        fix = f"remap {topic} to the topic of the robot's driver"
        raise QvlaError(
            f"joints on {topic}", f"{len(message.name)} names", f"at most {MAX_JOINTS}", fix
        )
    if len(message.name) != len(message.position):
        found = f"{len(message.name)} names, {len(message.position)} positions"
        raise QvlaError(
            f"joints on {topic}",
            found,
            "one position a name",
            "correct the driver that fills the message",
        )
    positions = dict(zip(message.name, message.position, strict=True))
    if len(positions) < len(message.name):
        twice = [name for name in needed if list(message.name).count(name) > 1]
        if twice:
            fix = "let one publisher report each joint, or give them different names"
            raise QvlaError(
                f"joints on {topic}", f"{twice[0]} more than once", "each joint once", fix
            )
    lacking = [name for name in needed if name not in positions]
    if lacking:
        fix = (
            f"publish them under these names, or remap {topic} to the topic that has them; "
            "joint_state_publisher with "
            "source_list merges messages of several drivers"
        )
        found = quoted(list(message.name))
        raise QvlaError(f"joints on {topic}", found, f"also {', '.join(lacking)}", fix)
    wrong = {name: positions[name] for name in needed if not math.isfinite(positions[name])}
    if wrong:
        raise QvlaError(
            f"joints on {topic}",
            wrong,
            "finite positions",
            "check the robot's driver and its encoders",
        )
    return positions


def pose_in(message: Any, topic: str, frame: str) -> ToolPose:
    """The pose of a PoseStamped in `frame`; QvlaError for another frame or for no pose."""
    found = message.header.frame_id
    if found != frame:
        fix = f"transform the pose into {frame!r}, or name that frame if it is in it already"
        raise QvlaError(
            f"frame_id on {topic}", quoted(found), f"{frame!r}, the bundle's frame", fix
        )
    return checked_pose(message.pose.position, message.pose.orientation, topic)


def checked_pose(position: Any, orientation: Any, source: str) -> ToolPose:
    """A pose of finite numbers, its quaternion normalised; QvlaError about `source` otherwise."""
    place = (position.x, position.y, position.z)
    turn = (orientation.x, orientation.y, orientation.z, orientation.w)
    length = math.hypot(*turn)
    if not all(map(math.isfinite, (*place, *turn))) or abs(length - 1.0) > _UNIT_TOLERANCE:
        expected = "finite numbers and a quaternion of length 1"
        raise QvlaError(
            f"pose on {source}",
            [*place, *turn],
            expected,
            "correct the node that publishes the pose",
        )
    x, y, z, w = (value / length for value in turn)
    return ToolPose(place, (x, y, z, w))
