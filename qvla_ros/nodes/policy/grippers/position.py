"""A gripper that takes positions on a topic."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from qvla_ros.nodes import qos
from qvla_ros.parameters.policy import CommandParameters


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


def make(
    node: Node, parameters: CommandParameters, closed: float, opened: float
) -> PositionGripper:
    return PositionGripper(node, parameters.gripper_topic, closed, opened)
