"""Topics that only one node may publish on: two of them would command or deceive the same arm."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.node import Node


class SolePublishers:
    """heard: cameras, ~/enable and ready_topic, in full. sent: where this node commands, in full.

    `crowd` asks the graph, which takes microseconds. Executor's thread.
    """

    def __init__(self, node: Node, heard: Iterable[str], sent: Iterable[str]) -> None:
        self._node = node
        self._topics = (*heard, *sent)

    def crowd(self) -> str:
        """Which topic has a second publisher, and what to do; empty if none has."""
        for topic in self._topics:
            count = self._node.count_publishers(topic)
            if count > 1:
                return (
                    f"{count} publishers on {topic}, expected one: stop the others (ros2 topic "
                    f"info --verbose {topic}); one that was killed is known for 20 s"
                )
        return ""
