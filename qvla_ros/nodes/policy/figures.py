"""Counts what the robot's side of the node has done so far."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from qvla_ros.control.stop_reason import StopReason

TICKS_KEPT = 1000  # ten seconds at 100 Hz


@dataclass(frozen=True)
class Stop:
    """A stop that was sent: its reason, when, and how late.

    stamp_ns: node time when its first command was sent; delay_s: how long after the limit was
    passed, or after what happened was noticed, that was (steady clock; for what only a tick can
    notice, since the tick before); delay_ticks: how many ticks began in that time, the one that
    sent the command included.
    """

    reason: StopReason
    stamp_ns: int
    delay_s: float
    delay_ticks: int


@dataclass(frozen=True)
class CommandFigures:
    """Figures of what has been commanded so far.

    interventions: stage of the safety chain -> commands that it changed.

    last_stop: since it was last armed. reason: why it is disarmed, also where nothing had been
    commanded that was to be stopped; None since it is armed, and before it first was. detail: what
    was found, such as the topic and its message, where that is known.
    """

    commands_sent: int = 0
    interventions: Mapping[str, int] = field(default_factory=dict)
    last_stop: Stop | None = None
    reason: StopReason | None = None
    detail: str = ""


NOTHING_COMMANDED = CommandFigures()


class TickLog:
    """When the last ticks began, to count those that a stop took. Control thread only."""

    def __init__(self) -> None:
        self._ticks_s: deque[float] = deque(maxlen=TICKS_KEPT)

    def note(self, steady_s: float) -> None:
        """Counts a tick that has ended. steady_s: when it began."""
        self._ticks_s.append(steady_s)

    def stop(self, reason: StopReason, passed_s: float, stamp_ns: int) -> Stop:
        """The stop that the present tick sent.

        passed_s: when its limit was passed, steady clock.
        """
        ticks = 1 + sum(tick_s >= passed_s for tick_s in self._ticks_s)
        return Stop(reason, stamp_ns, max(0.0, time.monotonic() - passed_s), ticks)
