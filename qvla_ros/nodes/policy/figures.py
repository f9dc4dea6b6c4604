"""What the robot's side of the node has done so far, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qvla_ros.control.stop_reason import StopReason


@dataclass(frozen=True)
class Stop:
    """One stop. stamp_ns: node time when its command was sent; delay_s: how long after the limit
    was passed, or after what happened was noticed, that was (steady clock; for what only a tick can
    notice, since the tick before); delay_ticks: how many ticks began in that time, the one that
    sent the command included.
    """

    reason: StopReason
    stamp_ns: int
    delay_s: float
    delay_ticks: int


@dataclass(frozen=True)
class CommandFigures:
    """What has been commanded so far. interventions: stage of the safety chain -> commands that it
    changed.

    last_stop: since it was last armed. reason: why it is disarmed, also where nothing had been
    commanded that was to be stopped; None since it is armed, and before it first was.
    """

    commands_sent: int = 0
    interventions: Mapping[str, int] = field(default_factory=dict)
    last_stop: Stop | None = None
    reason: StopReason | None = None


NOTHING_COMMANDED = CommandFigures()
