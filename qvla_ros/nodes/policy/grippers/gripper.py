"""The gripper's side of a command, and how the parameter gripper_output chooses it."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from rclpy.node import Node

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.outputs import GRIPPER_OUTPUTS
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import gripper_ends
from qvla_ros.parameters.policy import CommandParameters


class GripperOutput(Protocol):
    """Takes the opening as a fraction, 0 closed, 1 open, at every command.

    `begin` when commands begin anew.
    """

    def begin(self) -> None: ...

    def send(self, opening: float) -> None: ...

    def destroy(self) -> None: ...


def make_gripper(
    node: Node, parameters: CommandParameters, actions: ActionSpec
) -> GripperOutput | None:
    """Makes the gripper that the parameter gripper_output names.

    None for "none". QvlaError when the bundle has no gripper or the output cannot be used here.
    """
    kind = parameters.gripper_output
    if kind == "none":
        return None
    if actions.gripper_index is None:
        expected = "none: the bundle's actions have no gripper"
        fix = "-p gripper_output:=none"
        raise QvlaError("parameter gripper_output", kind, expected, fix)
    closed, opened = gripper_ends(parameters)
    return import_module(GRIPPER_OUTPUTS[kind]).make(node, parameters, closed, opened)
