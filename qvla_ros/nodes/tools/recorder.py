"""Records what running policy nodes subscribe to and publish in a bag.

It reads the graph again and again: a policy subscribes only when it is activated, and cameras come
and go. With a ROS install `ros2 bag record` does as well; this one needs Python wheels only, and
finds the topics itself.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.process import (
    Interrupted,
    destroy,
    ignore_signals,
    make_executor,
    run_node,
    spin,
)
from qvla_ros.nodes.tools.graph import message_class, read_topics
from qvla_ros.recording.settings import RecorderSettings
from qvla_ros.recording.writer import BagWriter, OfferedQos
from qvla_ros.ros_graph import Topic, policy_nodes, topics_of

GRAPH_PERIOD_S = 0.5  # how often the graph is read
DEPTH = 100  # messages that may wait for the executor's thread


class DurationOver(Exception):
    """The recorder has recorded for as long as it was asked to."""


class Recorder(Node):
    """Subscribes to raw messages as their publishers offer them, and hands them to a BagWriter."""

    def __init__(self, settings: RecorderSettings, writer: BagWriter) -> None:
        super().__init__("qvla_recorder")
        self._settings = settings
        self._writer = writer
        self._profiles: dict[str, QoSProfile] = {}
        self._readers: dict[str, Any] = {}
        self._refused: set[str] = set()
        self._started_s = time.monotonic()
        self.create_timer(
            GRAPH_PERIOD_S, self._read_graph, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    @property
    def progress(self) -> str:
        """Duration, topics, messages and bytes so far, in one line."""
        seconds = time.monotonic() - self._started_s
        dropped = sum(self._writer.dropped.values())
        size = f"{self._writer.messages} messages, {self._writer.written_bytes / 1e6:.1f} MB"
        text = f"{seconds:.0f} s, {len(self._readers)} topics, {size}"
        return f"{text}, {dropped} dropped: the disk is slow" if dropped else text

    def _read_graph(self) -> None:
        topics = read_topics(self)
        wanted = topics_of(topics, self._settings.policies or policy_nodes(topics))
        for name in {*wanted, *self._settings.topics} & set(topics):
            if topics[name].publishers and name not in self._refused:
                self._follow(name, topics[name])
        if sys.stderr.isatty():
            print(f"\r\033[K{self.progress} (Ctrl-C ends)", end="", file=sys.stderr, flush=True)
        duration_s = self._settings.duration_s
        if duration_s is not None and time.monotonic() - self._started_s > duration_s:
            raise DurationOver

    def _follow(self, name: str, topic: Topic) -> None:
        """Subscribes so that every publisher is heard; again if a new one offers less."""
        kind = topic.publishers[0].kind
        reliable = all(publisher.reliable for publisher in topic.publishers)
        latched = all(publisher.transient_local for publisher in topic.publishers)
        profile = QoSProfile(
            depth=DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        if self._profiles.get(name) == profile:
            return
        message = message_class(kind)
        known = name in self._readers or self._writer.add_topic(
            name, kind, OfferedQos(max(topic.publishers[0].depth, 1), reliable, latched)
        )
        if message is None or not known:
            self._refused.add(name)
            self.get_logger().warning(
                f"{name} is not recorded: the messages of {kind} are not installed here"
            )
            return
        if name in self._readers:
            self.destroy_subscription(self._readers.pop(name))
        self._profiles[name] = profile
        self._readers[name] = self.create_subscription(
            message, name, partial(self._take, name), profile, raw=True
        )

    def _take(self, topic: str, data: bytes) -> None:
        self._writer.put(topic, time.time_ns(), data)


def record(settings: RecorderSettings) -> int:
    """Records until a signal or the duration ends it; exit code 0, or 2 if nothing was recorded."""
    return run_node(partial(_serve, settings))


def _serve(settings: RecorderSettings) -> int:
    writer = BagWriter(settings.out)
    node = None
    executor = make_executor()
    try:
        node = Recorder(settings, writer)
        print(f"recording to {settings.out}; Ctrl-C ends it", file=sys.stderr, flush=True)
        spin(node, executor)
    except (Interrupted, DurationOver):
        ignore_signals()
    finally:
        summary = "" if node is None else node.progress
        if node is not None:
            destroy(node, executor)
        path = writer.close()
    if path is None:
        expected = "something published on the topics of a running policy node"
        fix = (
            "start the policy, check ROS_DOMAIN_ID, or name topics with --topics; `qvla "
            "doctor` shows the graph"
        )
        raise QvlaError("recording", "no message", expected, fix)
    print(f"{path}: {summary}")
    return 0
