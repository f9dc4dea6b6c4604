"""The running ROS graph, read through a node, as plain facts (qvla_ros.ros_graph)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from qvla_ros.ros_graph import Endpoint, Topic


def read_topics(node: Node) -> dict[str, Topic]:
    """Reads every topic that `node` has discovered so far, without the node's own endpoints."""
    own = node.get_fully_qualified_name()

    def endpoints(infos: list[TopicEndpointInfo]) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in map(_endpoint, infos) if endpoint.node != own)

    return {
        name: Topic(
            endpoints(node.get_publishers_info_by_topic(name)),
            endpoints(node.get_subscriptions_info_by_topic(name)),
        )
        for name, _ in node.get_topic_names_and_types()
    }


def read_nodes(node: Node) -> list[str]:
    """Full names of all nodes but `node`; a name that two nodes have comes twice."""
    names = [f"{space.rstrip('/')}/{name}" for name, space in node.get_node_names_and_namespaces()]
    names.remove(node.get_fully_qualified_name())
    return sorted(names)


def message_class(kind: str) -> Any | None:
    """The Python class of "package/msg/Name"; None if its package is not installed."""
    package, _, name = kind.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def _endpoint(info: TopicEndpointInfo) -> Endpoint:
    profile = info.qos_profile
    deadline_s = profile.deadline.nanoseconds * 1e-9
    return Endpoint(
        node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        kind=info.topic_type,
        reliable=profile.reliability == ReliabilityPolicy.RELIABLE,
        transient_local=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        depth=profile.depth,
        deadline_s=deadline_s if 0 < deadline_s < 1e6 else None,  # none is "for ever", or zero
    )
