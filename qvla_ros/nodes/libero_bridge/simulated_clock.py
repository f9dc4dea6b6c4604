"""Publishes the simulated time on /clock, for nodes with `use_sim_time: true`."""

from __future__ import annotations

from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message

START_NS = 1_000_000_000  # zero would mean "no time yet"


class SimulatedClock:
    """Simulated nanoseconds that never go back, published at every advance and whenever asked."""

    def __init__(self, node: Node) -> None:
        self.now_ns = START_NS
        self._publisher = node.create_publisher(Clock, "/clock", qos.SENSOR)

    def time_ns(self) -> int:
        """The simulated time now, as a function."""
        return self.now_ns

    def advance(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds
        self.publish()

    def publish(self) -> None:
        """Publishes the time again: a subscriber may have missed it, or have come since."""
        self._publisher.publish(Clock(clock=stamp_message(self.now_ns)))
