"""The worker takes the newest item next, drops what waited, and ends on request."""

from __future__ import annotations

import threading

from qvla_ros.nodes.worker import LatestOnlyWorker

PATIENCE_S = 10.0


def test_only_the_newest_waiting_item_is_worked_on() -> None:
    started = threading.Event()
    release = threading.Event()
    done = threading.Event()
    seen: list[int] = []

    def work(item: int) -> None:
        seen.append(item)
        started.set()
        assert release.wait(PATIENCE_S)
        if item == 4:
            done.set()

    worker = LatestOnlyWorker(work, "test")
    worker.submit(1)
    assert started.wait(PATIENCE_S)
    for item in (2, 3, 4):
        worker.submit(item)
    assert worker.busy_s() > 0
    release.set()
    assert done.wait(PATIENCE_S)
    assert worker.stop(PATIENCE_S)
    assert seen == [1, 4]
    assert worker.dropped == 2


def test_stopping_drops_what_waits_and_reports_an_item_that_does_not_end() -> None:
    started = threading.Event()
    release = threading.Event()
    seen: list[int] = []

    def work(item: int) -> None:
        seen.append(item)
        started.set()
        release.wait(PATIENCE_S)

    worker = LatestOnlyWorker(work, "test")
    worker.submit(1)
    assert started.wait(PATIENCE_S)
    worker.submit(2)
    assert not worker.stop(timeout_s=0.01)
    release.set()
    assert worker.stop(PATIENCE_S)
    assert seen == [1]
