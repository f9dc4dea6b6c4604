"""Describes a running ROS graph as plain facts.

They are who publishes and subscribes to what, and who cannot hear whom.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

CHUNK_TYPE = "qvla/msg/ActionChunk"
_HIDDEN = ("/rosout", "/parameter_events")


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription.

    node: full name; kind: type as "package/msg/Name"; deadline_s: None if there is none.
    """

    node: str
    kind: str
    reliable: bool
    transient_local: bool
    depth: int = 0
    deadline_s: float | None = None


@dataclass(frozen=True)
class Topic:
    """All endpoints of one topic."""

    publishers: tuple[Endpoint, ...]
    subscriptions: tuple[Endpoint, ...]

    @property
    def kinds(self) -> list[str]:
        return sorted({endpoint.kind for endpoint in (*self.publishers, *self.subscriptions)})


def incompatibility(publisher: Endpoint, subscription: Endpoint) -> str | None:
    """Returns why nothing of `publisher` reaches `subscription`, or None.

    A subscription gets no more than is offered.

    Source: the compatibility tables of docs.ros.org, "About Quality of Service settings".
    """
    if publisher.kind != subscription.kind:
        return f"one is {publisher.kind}, the other {subscription.kind}"
    if subscription.reliable and not publisher.reliable:
        return "the publisher is best effort, the subscription wants reliable"
    if subscription.transient_local and not publisher.transient_local:
        return "the publisher is volatile, the subscription wants transient local"
    if (
        subscription.deadline_s is not None
        and (publisher.deadline_s or float("inf")) > subscription.deadline_s
    ):
        return (
            f"the subscription wants a message every {subscription.deadline_s:g} s, "
            "which the publisher does not offer"
        )
    return None


def policy_nodes(topics: Mapping[str, Topic]) -> list[str]:
    """Full names of the nodes that publish action chunks."""
    publishers = (endpoint for topic in topics.values() for endpoint in topic.publishers)
    return sorted({endpoint.node for endpoint in publishers if endpoint.kind == CHUNK_TYPE})


def topics_of(topics: Mapping[str, Topic], nodes: Collection[str]) -> list[str]:
    """Lists what these nodes subscribe to and publish.

    It leaves out what every node has (logs, parameters, services, actions).
    """
    return [
        name
        for name, topic in sorted(topics.items())
        if name not in _HIDDEN
        and "/_" not in name
        and all("/msg/" in kind for kind in topic.kinds)
        and any(endpoint.node in nodes for endpoint in (*topic.publishers, *topic.subscriptions))
    ]
