"""A request to stop wins over those to arm that were called before it, in whatever order they are
handled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control.arm_order import JUST_AFTER_S, ArmOrder
from qvla_ros.errors import QvlaError

SERVICES = ("arm", "cancel", "goal", "instruction")
# What a service is called for, and what the node does just after: how many calls it handles, and of
# which services first.
CALLS = st.tuples(st.sampled_from(SERVICES), st.booleans(), st.integers(0, 3))


@dataclass
class StalledNode:
    """Handles now and then some of the calls that wait; each service has a queue of its own."""

    order: tuple[str, ...]
    now_s: float = 100.0
    armed: bool = False
    queues: dict[str, deque[bool]] = field(
        default_factory=lambda: {name: deque() for name in SERVICES}
    )

    def __post_init__(self) -> None:
        self.arm_order = ArmOrder(self.queues["arm"].clear)

    def handle(self, count: int) -> None:
        for _ in range(count):
            for name in self.order:
                if self.queues[name]:
                    self._handle_one(name, self.queues[name].popleft())
                    self.now_s += 0.001
                    break

    def _handle_one(self, name: str, arms: bool) -> None:
        if name != "arm" or not arms:
            self.armed = False
            self.arm_order.stop(self.now_s)
            return
        try:
            self.arm_order.require_no_stop(self.now_s)
        except QvlaError:
            return
        self.armed = True


@given(st.permutations(SERVICES), st.lists(CALLS, max_size=30), st.sampled_from(SERVICES))
def test_a_storm_of_calls_that_ends_with_a_stop_ends_disarmed(
    order: list[str], calls: list[tuple[str, bool, int]], last: str
) -> None:
    node = StalledNode(tuple(order))
    for name, arms, handled in [*calls, (last, False, 0)]:
        node.queues[name].append(arms)
        node.handle(handled)
    node.handle(1000)
    assert not any(node.queues.values())
    assert not node.armed


@pytest.mark.parametrize(
    ("since_s", "arms"), [(0.0, False), (0.99 * JUST_AFTER_S, False), (1.01 * JUST_AFTER_S, True)]
)
def test_what_is_handled_just_after_a_stop_is_refused_too(since_s: float, arms: bool) -> None:
    node = StalledNode(SERVICES)
    node.queues["cancel"].append(False)
    node.handle(1)
    node.now_s = 100.0 + since_s
    node.queues["arm"].append(True)
    node.handle(1)
    assert node.armed is arms
