"""The robot's side of the policy node, whether or not it commands a robot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.nodes.policy.figures import CommandFigures
from qvla_ros.nodes.policy.snapshot import LoopHealth


@dataclass(frozen=True)
class Sources:
    """What the control thread asks for at every tick; each may be called from any thread.

    measured: where the arm is and the stamp of that, ns, None if it is not known; refusal: why an
    input cannot be used, else empty; busy_s: for how long the present inference has been running.
    """

    measured: Callable[[], tuple[Setpoint, int] | None]
    refusal: Callable[[], str]
    busy_s: Callable[[], float]


class Commands(Protocol):
    """Made at configure; `start`ed and `finish`ed with each activation.

    Then `destroy`ed. Those, and poll, are for the executor's thread, the others for any.

    armed: whether what is published may be acted on. error: what broke the control thread, else
    empty.
    """

    error: str

    @property
    def armed(self) -> bool: ...

    def start(self, sources: Sources) -> None:
        """Begins, disarmed."""

    def finish(self, reason: StopReason) -> None:
        """Brakes the arm if it was commanded. Returns when the command is at rest."""

    def destroy(self) -> None:
        """Destroys the publishers, after `finish`."""

    def arm(self) -> None:
        """Commands may go out from the next chunk on. QvlaError says why not."""

    def disarm(self, reason: StopReason, detail: str = "") -> None:
        """Begins to brake the arm, if it was commanded, within a period.

        detail: what was found, for the status.
        """

    def is_stopping(self) -> bool:
        """True until the arm has been braked to rest."""

    def observe(self, stamp_ns: int) -> None:
        """A complete observation came; stamp_ns: of the oldest sample in it."""

    def plan(self, chunk: PlannedChunk) -> int | None:
        """A new chunk takes over from where its time has come.

        How many of its actions were skipped, None if it is not carried out.
        """

    def flush(self) -> None:
        """Forgets what was planned, and what is being computed from earlier observations."""

    def poll(self) -> None:
        """To be called periodically: so it is known that the executor's thread is at work.

        Publishes the plan for displays, if any listens.
        """

    def health(self) -> LoopHealth | None:
        """How punctual the control thread is; None without one."""

    def figures(self) -> CommandFigures:
        """What has been commanded so far."""

    def plan_ahead(self) -> tuple[float, NDArray[np.float64]]:
        """How long the plan goes on, s, and its actions in force and to come, [m, A]."""


class ChunksOnly:
    """`output: none`: no robot is commanded here.

    Arming marks the chunks, which another program carries out. figures: of what commanded before,
    if anything did.
    """

    def __init__(self, figures: CommandFigures) -> None:
        self.error = ""
        self.armed = False
        self._figures = figures

    def start(self, sources: Sources) -> None:
        self.armed = False

    def finish(self, reason: StopReason) -> None:
        self.armed = False

    def destroy(self) -> None:
        self.armed = False

    def arm(self) -> None:
        self.armed = True

    def disarm(self, reason: StopReason, detail: str = "") -> None:
        self.armed = False

    def is_stopping(self) -> bool:
        return False

    def observe(self, stamp_ns: int) -> None:
        """Ignored: without an output no age is checked."""

    def plan(self, chunk: PlannedChunk) -> int | None:
        return None

    def flush(self) -> None:
        """Nothing is planned."""

    def poll(self) -> None:
        """Nothing is planned."""

    def health(self) -> LoopHealth | None:
        return None

    def figures(self) -> CommandFigures:
        return self._figures

    def plan_ahead(self) -> tuple[float, NDArray[np.float64]]:
        return 0.0, np.zeros((0, 0))
