"""The quality of service of every topic, in one place.

`qos_overrides.<topic>...` parameters change one.
"""

from __future__ import annotations

import copy
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    # Depth 1 everywhere: an older image, command or state is worth nothing once there is a newer
    # one.
    return QoSProfile(
        depth=1, history=HistoryPolicy.KEEP_LAST, reliability=reliability, durability=durability
    )


# Best effort, as sensor drivers publish (a reliable subscriber would not match them).
SENSOR = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
# A command must arrive, but never late to someone who was not there.
COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
# The last instruction and the last status are also for who comes later.
LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)

# By default rclpy waits for two events more on every topic, to log that somebody's QoS or type does
# not fit, and goes through them all before each message that it takes; its events executor may
# crash where an endpoint is destroyed while one is on its way (rclpy issue 1644). So nothing that
# comes and goes with a transition has them: `qvla doctor` names such pairs.
NO_PUBLISHER_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
NO_SUBSCRIPTION_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)


def published(profile: QoSProfile) -> dict[str, Any]:
    """Arguments of a publisher that comes and goes with a transition, beside type and topic."""
    return {**_overridable(profile), "event_callbacks": NO_PUBLISHER_EVENTS}


def subscribed(profile: QoSProfile) -> dict[str, Any]:
    """The same for a subscription, beside type, topic and callback."""
    return {**_overridable(profile), "event_callbacks": NO_SUBSCRIPTION_EVENTS}


def _overridable(profile: QoSProfile) -> dict[str, Any]:
    """Lets a launch file change history, depth and reliability of a topic.

    A copy: rclpy writes them into it.
    """
    options = QoSOverridingOptions.with_default_policies()
    return {"qos_profile": copy.copy(profile), "qos_overriding_options": options}
