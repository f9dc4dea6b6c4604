"""The gripper's command: a position topic, or control_msgs' ParallelGripperCommand action where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from rclpy.action import ActionClient
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from qvla_ros.bundle import ActionSpec
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos

GOAL_CHANGE = 0.05  # opening fraction; an action's goal takes effect once, and each new one cancels the last


class GripperOutput(Protocol):
    """Takes the opening as a fraction, 0 closed, 1 open, at every command; `begin` when commands begin anew."""

    def begin(self) -> None: ...

    def send(self, opening: float) -> None: ...

    def destroy(self) -> None: ...


class PositionGripper:
    """std_msgs/Float64MultiArray of one number, as a position group controller takes it, at every command."""

    def __init__(self, node: Node, topic: str, closed: float, opened: float) -> None:
        self._node, self._closed, self._opened = node, closed, opened
        self._publisher = node.create_publisher(Float64MultiArray, topic, qos.COMMAND)

    def begin(self) -> None:
        """Nothing is remembered."""

    def send(self, opening: float) -> None:
        self._publisher.publish(Float64MultiArray(data=[self._closed + opening * (self._opened - self._closed)]))

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)


class ActionGripper:
    """control_msgs/ParallelGripperCommand: a goal whenever the opening has changed by more than GOAL_CHANGE.

    Goals are not waited for: the arm does not stop for the gripper. `joint`: its name in the command.
    """

    def __init__(self, node: Node, name: str, joint: str, closed: float, opened: float) -> None:
        self._action = _parallel_gripper_command()
        self._joint, self._closed, self._opened = joint, closed, opened
        self._last: float | None = None
        self._client: Any = ActionClient(node, self._action, name)

    def begin(self) -> None:
        """Send a goal with the next command: somebody else may have moved the gripper meanwhile."""
        self._last = None

    def send(self, opening: float) -> None:
        moved = self._last is None or abs(opening - self._last) > GOAL_CHANGE
        if moved and self._client.server_is_ready():  # not there yet: the same opening is tried at the next command
            goal = self._action.Goal()
            goal.command.name = [self._joint] if self._joint else []
            goal.command.position = [self._closed + opening * (self._opened - self._closed)]
            self._client.send_goal_async(goal)
            self._last = opening

    def destroy(self) -> None:
        self._client.destroy()


def make_gripper(node: Node, parameters: Mapping[str, Any], actions: ActionSpec) -> GripperOutput | None:
    """What the parameter gripper_output names. QvlaError when the bundle has no gripper or the action is not there."""
    kind = parameters["gripper_output"]
    if kind == "none":
        return None
    if actions.gripper_index is None:
        fix = "-p gripper_output:=none"
        raise QvlaError("parameter gripper_output", kind, "none: the bundle's actions have no gripper", fix)
    topic, closed, opened = (parameters[name] for name in ("gripper_topic", "gripper_min", "gripper_max"))
    if kind == "position":
        return PositionGripper(node, topic, closed, opened)
    return ActionGripper(node, topic, parameters["gripper_joint"], closed, opened)


def _parallel_gripper_command() -> Any:
    try:
        return import_module("control_msgs.action").ParallelGripperCommand
    except (ImportError, AttributeError) as error:
        expected = "control_msgs with the action ParallelGripperCommand"
        fix = "install it (apt: ros-$ROS_DISTRO-control-msgs), or -p gripper_output:=position"
        raise QvlaError("parameter gripper_output", f"parallel_gripper_command ({error})", expected, fix) from None
