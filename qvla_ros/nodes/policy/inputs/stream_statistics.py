"""Measures the rate and the age of each input, for diagnostics. Pure: time comes in as numbers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

WINDOW_S = 2.0  # long enough for a camera of a few Hz, short enough to see one stop
_MAX_ARRIVALS = 4096  # a 1 kHz joint state for WINDOW_S, twice


@dataclass(frozen=True)
class StreamHealth:
    """How often an input comes, and how old it is.

    rate_hz: of usable messages; age_s: node time since the newest one's stamp, infinite if none
    came.
    """

    topic: str
    rate_hz: float
    age_s: float


class StreamStatistics:
    """Usable messages of each stream. Thread-safe: an executor notes, others read."""

    def __init__(self, streams: Iterable[str], started_s: float) -> None:
        self._lock = threading.Lock()
        self._started_s = started_s
        self._arrivals_s: dict[str, deque[float]] = {
            stream: deque(maxlen=_MAX_ARRIVALS) for stream in streams
        }
        self._newest_ns: dict[str, int] = {}

    def note(self, stream: str, stamp_ns: int, steady_s: float) -> None:
        """A usable message with this stamp arrived at `steady_s` of a clock that does not jump."""
        with self._lock:
            arrivals = self._arrivals_s[stream]
            arrivals.append(steady_s)
            while arrivals[0] < steady_s - WINDOW_S:
                arrivals.popleft()
            self._newest_ns[stream] = stamp_ns

    def health(self, now_ns: int, steady_s: float) -> tuple[StreamHealth, ...]:
        """Rates in real seconds over the last WINDOW_S.

        Ages in seconds of the clock that made the stamps.
        """
        span_s = min(WINDOW_S, steady_s - self._started_s)
        with self._lock:
            return tuple(
                StreamHealth(
                    stream, self._rate_hz(arrivals, steady_s, span_s), self._age_s(stream, now_ns)
                )
                for stream, arrivals in self._arrivals_s.items()
            )

    @staticmethod
    def _rate_hz(arrivals: deque[float], steady_s: float, span_s: float) -> float:
        recent = sum(1 for arrival_s in arrivals if arrival_s > steady_s - WINDOW_S)
        return recent / span_s if span_s > 0 else 0.0

    def _age_s(self, stream: str, now_ns: int) -> float:
        newest_ns = self._newest_ns.get(stream)
        return float("inf") if newest_ns is None else (now_ns - newest_ns) * 1e-9
