"""A gripper that takes goals of an action."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from rclpy.action import ActionClient
from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.policy import CommandParameters

# Opening fraction: an action's goal takes effect once, and each new one cancels the last.
GOAL_CHANGE = 0.05
RETRY_S = 0.5  # until a goal that was refused is sent again
WARN_EVERY_S = 10.0


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
        # not there yet: the same opening is tried at the next command
        if not self._client.server_is_ready():
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


def make(node: Node, parameters: CommandParameters, closed: float, opened: float) -> ActionGripper:
    """Makes the gripper's output. Raises QvlaError where control_msgs is not installed."""
    name = parameters.gripper_topic
    return ActionGripper(node, name, parameters.gripper_joint, closed, opened)


def _parallel_gripper_command() -> Any:
    try:
        return import_module("control_msgs.action").ParallelGripperCommand
    except (ImportError, AttributeError) as error:
        expected = "control_msgs with the action ParallelGripperCommand"
        fix = "install it (apt: ros-$ROS_DISTRO-control-msgs), or -p gripper_output:=position"
        raise QvlaError(
            "parameter gripper_output", f"parallel_gripper_command ({error})", expected, fix
        ) from None
