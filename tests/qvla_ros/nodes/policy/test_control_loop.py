"""The control loop keeps to its deadlines, skips those it missed, and ends on request."""

from __future__ import annotations

import threading
import time

from qvla_ros.nodes.policy.control_loop import ControlLoop

PATIENCE_S = 10.0


def test_ticks_come_at_multiples_of_the_period_and_never_early() -> None:
    ticks_s: list[float] = []
    enough = threading.Event()

    def tick() -> None:
        ticks_s.append(time.monotonic())
        if len(ticks_s) == 10:
            enough.set()

    loop = ControlLoop(tick, 0.01)
    assert enough.wait(PATIENCE_S)
    loop.stop()
    health = loop.health()
    assert all(tick_s >= ticks_s[0] + i * 0.01 - 1e-3 for i, tick_s in enumerate(ticks_s))
    assert health.ticks == len(ticks_s)
    assert health.asked_ms == 10.0
    assert 0 < health.p50_ms <= health.p99_ms <= health.max_ms


def test_missed_deadlines_are_skipped_and_counted_not_made_up_for() -> None:
    starts_s: list[float] = []
    enough = threading.Event()

    def tick() -> None:
        starts_s.append(time.monotonic())
        if len(starts_s) == 1:
            time.sleep(0.105)
        if len(starts_s) == 3:
            enough.set()

    loop = ControlLoop(tick, 0.02)
    assert enough.wait(PATIENCE_S)
    loop.stop()
    assert loop.health().overruns >= 5
    # the sixth deadline, 0.12 s, is the first that is not over yet
    assert starts_s[1] - starts_s[0] >= 0.119


def test_no_tick_comes_after_stop_has_returned() -> None:
    count = 0
    begun = threading.Event()

    def tick() -> None:
        nonlocal count
        count += 1
        begun.set()

    loop = ControlLoop(tick, 1e-3)
    assert begun.wait(PATIENCE_S)
    loop.stop()
    seen = count
    assert not loop.alive
    time.sleep(0.02)
    assert count == seen
