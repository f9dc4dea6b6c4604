"""The gripper's command: a position topic, or control_msgs' ParallelGripperCommand action where it
is installed.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any, Protocol

from rclpy.action import ActionClient
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from qvla_ros.bundle import ActionSpec
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import gripper_ends
from qvla_ros.nodes import qos
from qvla_ros.parameters.policy import CommandParameters

GOAL_CHANGE = (
    0.05  # opening fraction; an action's goal takes effect once, and each new one cancels the last
)
RETRY_S = 0.5  # until a goal that was refused is sent again
WARN_EVERY_S = 10.0


class GripperOutput(Protocol):
    """Takes the opening as a fraction, 0 closed, 1 open, at every command; `begin` when commands
    begin anew.
    """

    def begin(self) -> None: ...

    def send(self, opening: float) -> None: ...

    def destroy(self) -> None: ...


class PositionGripper:
    """std_msgs/Float64MultiArray of one number, as a position group controller takes it, at every
    command.
    """

    def __init__(self, node: Node, topic: str, closed: float, opened: float) -> None:
        self._node = node
        self._closed = closed
        self._opened = opened
        self._publisher = node.create_publisher(
            Float64MultiArray, topic, **qos.published(qos.COMMAND)
        )

    def begin(self) -> None:
        """Nothing is remembered."""

    def send(self, opening: float) -> None:
        self._publisher.publish(
            Float64MultiArray(data=[self._closed + opening * (self._opened - self._closed)])
        )

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)


class ActionGripper:
    """control_msgs/ParallelGripperCommand: a goal whenever the opening has changed by more than
    GOAL_CHANGE.

    Goals are not waited for: the arm does not stop for the gripper. A server that is not there, or
    refuses, is named in the log, and the goal is sent again. `joint`: its name in the command.
    """

    def __init__(self, node: Node, name: str, joint: str, closed: float, opened: float) -> None:
        self._action = _parallel_gripper_command()
        self._joint = joint
        self._closed = closed
        self._opened = opened
        self._last: float | None = None
        self._refused_s = float("-inf")
        self._logger = node.get_logger()
        self._name = name
        self._client: Any = ActionClient(node, self._action, name)

    def begin(self) -> None:
        """Send a goal with the next command: somebody else may have moved the gripper meanwhile."""
        self._last = None

    def send(self, opening: float) -> None:
        if self._last is not None and abs(opening - self._last) <= GOAL_CHANGE:
            return
        if time.monotonic() < self._refused_s + RETRY_S:
            return
        if (
            not self._client.server_is_ready()
        ):  # not there yet: the same opening is tried at the next command
            self._warn("is not there: check gripper_topic and the gripper's controller")
            return
        goal = self._action.Goal()
        goal.command.name = [self._joint] if self._joint else []
        goal.command.position = [self._closed + opening * (self._opened - self._closed)]
        self._last = opening
        self._client.send_goal_async(goal).add_done_callback(self._answered)

    def destroy(self) -> None:
        self._client.destroy()

    def _answered(self, future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._last = None
            self._refused_s = time.monotonic()
            self._warn("refused a goal: check gripper_joint, gripper_min and gripper_max")

    def _warn(self, what: str) -> None:
        self._logger.warning(
            f"gripper: the action server {self._name} {what}", throttle_duration_sec=WARN_EVERY_S
        )


def make_gripper(
    node: Node, parameters: CommandParameters, actions: ActionSpec
) -> GripperOutput | None:
    """What the parameter gripper_output names. QvlaError when the bundle has no gripper or the
    action is not there.
    """
    kind = parameters.gripper_output
    if kind == "none":
        return None
    if actions.gripper_index is None:
        fix = "-p gripper_output:=none"
        raise QvlaError(
            "parameter gripper_output", kind, "none: the bundle's actions have no gripper", fix
        )
    topic = parameters.gripper_topic
    (closed, opened) = gripper_ends(parameters)
    if kind == "position":
        return PositionGripper(node, topic, closed, opened)
    return ActionGripper(node, topic, parameters.gripper_joint, closed, opened)


def _parallel_gripper_command() -> Any:
    try:
        return import_module("control_msgs.action").ParallelGripperCommand
    except (ImportError, AttributeError) as error:
        expected = "control_msgs with the action ParallelGripperCommand"
        fix = "install it (apt: ros-$ROS_DISTRO-control-msgs), or -p gripper_output:=position"
        raise QvlaError(
            "parameter gripper_output", f"parallel_gripper_command ({error})", expected, fix
        ) from None
