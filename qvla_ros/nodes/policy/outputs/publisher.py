"""Publishes the commands of one form, whatever their message."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node

from qvla_ros.control.decision import Decision
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.outputs.form import CommandForm


class CommandOutput:
    """Publishes setpoints as messages of one form; one thread calls at a time."""

    def __init__(self, node: Node, form: CommandForm, topic: str) -> None:
        self._node = node
        self._form = form
        self._message = import_module(form.output.module).message
        kind = message_class(form.output.message_type)
        self._publisher = node.create_publisher(kind, topic, **qos.published(qos.COMMAND))

    def send(self, decision: Decision, now_ns: int) -> None:
        """The next setpoint, velocity or trajectory; the decision has a motion."""
        ahead = self._form.output.sends == "trajectories"
        content = decision.trajectory if ahead else decision.motion
        self._publisher.publish(self._message(self._form, content, now_ns))

    def wait_for_acknowledgement(self, timeout_s: float) -> None:
        """Gives the last command the time to arrive before the publisher goes."""
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)


def message_class(message_type: str) -> Any:
    """The Python class of a type such as geometry_msgs/msg/TwistStamped."""
    package, folder, name = message_type.split("/")
    return getattr(import_module(f"{package}.{folder}"), name)
