"""A running ROS graph as the doctor has heard it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qvla_ros.ros_graph import Topic


@dataclass(frozen=True)
class Heard:
    """The messages that were received on a topic.

    message: the last one. count: how many came in listened_s. age_s: of the last one, arrival minus
    stamp on this machine's clock; NaN for a message without a stamp.
    """

    message: Any
    count: int
    listened_s: float
    age_s: float


@dataclass(frozen=True)
class Graph:
    """The facts of a running graph.

    heard: topic -> what came on it. states: policy node -> its last qvla/PolicyStatus. nodes: full
    names; one that two nodes have comes twice.
    """

    topics: Mapping[str, Topic]
    heard: Mapping[str, Heard] = field(default_factory=dict)
    states: Mapping[str, Any] = field(default_factory=dict)
    nodes: Sequence[str] = ()
