"""The decision of one tick of the controller."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_ros.control.course import Trajectory
from qvla_ros.control.motion import MotionState
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason


@dataclass(frozen=True)
class Decision:
    """All that is sent, and all that is reported of a stop.

    motion: what to send, a setpoint with its velocities; None: nothing. stop: why commands end, in
    the one tick that sends the first command of the stop, else None. `motion` then begins to brake,
    as do those of the ticks that follow; for `zero` they say nothing of the gripper, for `none`
    there are none. passed_s: with a stop, when its limit was passed or its cause happened, steady
    clock.
    trajectory: of outputs that are sent ahead, the course that ends with the motion.
    """

    motion: MotionState | None = None
    stop: StopReason | None = None
    passed_s: float | None = None
    trajectory: Trajectory | None = None

    @property
    def command(self) -> Setpoint | None:
        """The setpoint of the motion."""
        return None if self.motion is None else self.motion.setpoint
