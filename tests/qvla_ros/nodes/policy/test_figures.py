"""How late a stop was: in seconds, and in ticks that began since its limit was passed."""

from __future__ import annotations

import time

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.nodes.policy.figures import TickLog


def test_a_stop_counts_the_ticks_since_its_limit_was_passed_and_the_one_that_sends_it() -> None:
    now_s = time.monotonic()
    ticks = TickLog()
    for ago_s in (0.5, 0.4, 0.3, 0.2):
        ticks.note(now_s - ago_s)
    stop = ticks.stop(StopReason.stale_input, now_s - 0.3, 12)
    assert (stop.reason, stop.stamp_ns, stop.delay_ticks) == (StopReason.stale_input, 12, 3)
    assert stop.delay_s >= 0.3
    assert ticks.stop(StopReason.stale_input, now_s - 0.1, 12).delay_ticks == 1
