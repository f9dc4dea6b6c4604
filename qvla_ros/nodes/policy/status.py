"""qvla/PolicyStatus from a snapshot: published when something has changed, and once a second."""

from __future__ import annotations

import time
from typing import Any

from qvla.msg import PolicyStatus
from rclpy.duration import Duration
from rclpy.node import Node

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.nodes.policy.snapshot import Snapshot

PERIOD_S = 1.0


def status_message(snapshot: Snapshot, now_ns: int) -> PolicyStatus:
    """The message that says the same, stamped now."""
    message = PolicyStatus(
        state=snapshot.state,
        reason=snapshot.reason,
        armed=snapshot.armed,
        bundle_id=snapshot.bundle_id,
        engine=snapshot.engine,
        chunks_published=snapshot.chunks_published,
        observations_dropped=snapshot.observations_dropped,
        last_inference_ms=snapshot.inference_ms[-1] if snapshot.inference_ms else 0.0,
        commands_sent=snapshot.commands_sent,
        stop_reason=snapshot.stop_reason,
        stop_stamp=stamp_message(snapshot.stop_stamp_ns),
        stop_delay_s=snapshot.stop_delay_s,
        stop_delay_ticks=snapshot.stop_delay_ticks,
        intervention_names=list(snapshot.interventions),
        intervention_counts=list(snapshot.interventions.values()),
    )
    message.header.stamp = stamp_message(now_ns)
    return message


class StatusPublisher:
    """Publishes `~/status`, latched, and logs a warning of every stop and every new wait."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            PolicyStatus, "~/status", qos.LATCHED, event_callbacks=qos.NO_PUBLISHER_EVENTS
        )
        self._news: tuple[Any, ...] = ()
        self._warned = ""
        self._warned_stop = ("", 0)
        self._published_s = float("-inf")

    def publish(self, snapshot: Snapshot, only_news: bool = False) -> None:
        """Publishes the status; with `only_news` not if it equals the last one.

        An equal one is published once PERIOD_S has passed.
        """
        # A reason with a growing age in it is not news; another sentence is.
        sentence = snapshot.reason.split(":")[0]
        stop = (snapshot.stop_reason, snapshot.stop_stamp_ns)
        if stop != self._warned_stop:
            self._warned_stop = stop
            if snapshot.stop_reason:
                what = (
                    "arm stopped and disarmed"
                    if snapshot.stop_stamp_ns
                    else "disarmed before anything was commanded"
                )
                reason = StopReason[snapshot.stop_reason]
                self._node.get_logger().warning(f"{what}: {reason.name}, {reason.value}")
        news = (snapshot.state, snapshot.armed, snapshot.stop_reason, sentence)
        now_s = time.monotonic()
        if only_news and news == self._news and now_s - self._published_s < PERIOD_S:
            return
        if snapshot.state == PolicyStatus.WAITING and sentence != self._warned:
            self._warned = sentence
            self._node.get_logger().warning(snapshot.reason)
        self._news = news
        self._published_s = now_s
        self._publisher.publish(status_message(snapshot, self._node.get_clock().now().nanoseconds))

    def wait_for_acknowledgement(self, timeout_s: float) -> None:
        """Waits until all subscribers have the last status."""
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))
