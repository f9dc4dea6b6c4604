"""A thread that does one thing at a fixed rate, and reports how well it keeps it.

It keeps absolute deadlines of the steady clock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from qvla_ros.nodes.policy.snapshot import LoopHealth

WINDOW_TICKS = 1000  # ten seconds at 100 Hz


class ControlLoop:
    """Calls `tick()` every `period_s`, from the start on until `stop`.

    Deadlines do not drift: a late tick does not delay those after it. Deadlines that passed
    meanwhile are skipped and counted, for a burst of commands would be worse than a gap. `tick`
    must handle its own errors: what it raises ends the thread, and `alive` turns false.
    """

    def __init__(self, tick: Callable[[], None], period_s: float, name: str = "control") -> None:
        self.period_s = period_s
        self._tick = tick
        self._periods_s: deque[float] = deque(maxlen=WINDOW_TICKS)
        self._ticks = self._overruns = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Returns when the last tick is over; not from within a tick."""
        self._stopping.set()
        self._thread.join()

    def periods_s(self) -> tuple[float, ...]:
        """The last periods between the starts of two ticks, steady clock, oldest first."""
        return tuple(self._periods_s.copy())

    def health(self) -> LoopHealth:
        """Percentiles of the last WINDOW_TICKS periods; zeros before the second tick."""
        periods_ms = 1e3 * np.array(self.periods_s() or (0.0,))
        p50_ms, p99_ms = np.percentile(periods_ms, (50, 99))
        asked_ms = 1e3 * self.period_s
        return LoopHealth(
            self._ticks,
            self._overruns,
            asked_ms,
            float(p50_ms),
            float(p99_ms),
            float(periods_ms.max()),
        )

    def _loop(self) -> None:
        deadline_s = last_s = time.monotonic()
        while True:
            self._tick()
            self._ticks += 1
            deadline_s += self.period_s
            # negative or 0: not yet due
            late = int((time.monotonic() - deadline_s) // self.period_s) + 1
            if late > 0:
                self._overruns += late
                deadline_s += late * self.period_s
            if self._stopping.wait(max(0.0, deadline_s - time.monotonic())):
                return
            now_s = time.monotonic()
            self._periods_s.append(now_s - last_s)
            last_s = now_s
