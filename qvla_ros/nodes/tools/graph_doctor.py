"""The doctor's part that needs ROS: tests its messages, and reads and hears the running graph."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import rclpy
from qvla.msg import ActionChunk, PolicyStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.type_support import check_for_type_support

from qvla_ros.doctor.graph import Graph, Heard
from qvla_ros.doctor.needed_inputs import Input
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.process import destroy
from qvla_ros.nodes.start import make_node, start_ros
from qvla_ros.nodes.tools.graph import message_class, read_nodes, read_topics
from qvla_ros.ros_graph import Topic

STATUS_TYPE = "qvla/msg/PolicyStatus"


def check_messages() -> None:
    """Raises rclpy's own error if this package's messages cannot be sent."""
    for kind in (ActionChunk, PolicyStatus):
        check_for_type_support(kind)


def read_graph(inputs: Sequence[Input], discover_s: float, listen_s: float) -> Graph:
    """Joins the graph of ROS_DOMAIN_ID, discovers it, listens to `inputs` and leaves."""
    context = Context()
    start_ros([], context)
    try:
        node = make_node("qvla_doctor", context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        _spin(executor, discover_s)
        topics = read_topics(node)
        nodes = read_nodes(node)
        listeners = {
            name: Listener()
            for needed in inputs
            for name in needed.kinds
            if _published(topics, name)
        }
        for needed in inputs:
            profile = qos.LATCHED if needed.wish.transient_local else qos.SENSOR
            for name in needed.kinds.keys() & listeners.keys():
                if (kind := message_class(needed.kinds[name])) is not None:
                    node.create_subscription(kind, name, listeners[name].take, profile)
        states: dict[str, Any] = {}
        for name, topic in topics.items():
            if topic.kinds == [STATUS_TYPE] and topic.publishers:
                keep = partial(states.__setitem__, topic.publishers[0].node)
                node.create_subscription(PolicyStatus, name, keep, qos.LATCHED)
        _spin(executor, listen_s)
        destroy(node, executor)
    finally:
        rclpy.try_shutdown(context=context)
    heard = {
        name: found
        for name, listener in listeners.items()
        if (found := listener.heard(listen_s)) is not None
    }
    return Graph(topics, heard, states, nodes)


class Listener:
    """Counts messages and keeps the last; of joint states the last of each driver, as one."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, ...], Any] = {}  # by their joints; () for other messages
        self._count = 0
        self._age_s = float("nan")

    def take(self, message: Any) -> None:
        """A message arrived."""
        joints = tuple(getattr(message, "name", ()))
        self._messages.pop(joints, None)
        self._messages[joints] = message
        self._count += 1
        if hasattr(message, "header"):
            self._age_s = (time.time_ns() - stamp_ns(message.header.stamp)) * 1e-9

    def heard(self, listened_s: float) -> Heard | None:
        """The last message and the statistics of all, None if none came."""
        if not self._count:
            return None
        return Heard(self._merged(), self._count, listened_s, self._age_s)

    def _merged(self) -> Any:
        """The last message, with the joints of those of other drivers."""
        *others, last = self._messages.values()
        if not others:
            return last
        merged = copy.copy(last)
        positions = {
            name: position
            for message in (*others, last)
            for name, position in zip(message.name, message.position, strict=False)
        }
        merged.name = list(positions)
        merged.position = list(positions.values())
        return merged


def _published(topics: dict[str, Topic], name: str) -> bool:
    return name in topics and bool(topics[name].publishers)


def _spin(executor: SingleThreadedExecutor, duration_s: float) -> None:
    end_s = time.monotonic() + duration_s
    while (left_s := end_s - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left_s)
