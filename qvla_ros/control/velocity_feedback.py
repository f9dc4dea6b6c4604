"""What measured poses mean for a robot that is sent velocities: where it will be, and whether it
follows.
"""

from __future__ import annotations

from dataclasses import replace

from qvla_ros.control.following import Following
from qvla_ros.control.motion import MotionState, is_usable
from qvla_ros.control.sent_velocities import SentVelocities
from qvla_ros.control.setpoint import Setpoint


class VelocityFeedback:
    """Times are seconds of the robot's clock. Not thread-safe. period_s: of the commands.

    reaction_time_s: from a command to when the measured pose shows it. following_window_s: see
    Following.
    """

    def __init__(self, period_s: float, reaction_time_s: float, following_window_s: float) -> None:
        self.reaction_time_s = reaction_time_s
        self._sent = SentVelocities(period_s)
        self._following = Following(self._sent, following_window_s, reaction_time_s)

    def clear(self) -> None:
        """The robot rests, and is to be followed anew."""
        self._sent.clear()
        self._following.clear()

    def note(self, now_s: float, motion: MotionState) -> None:
        """The velocities of `motion` go out."""
        self._sent.note(now_s, motion)

    def follows(self, now_s: float, measured: Setpoint | None) -> bool:
        """Whether the robot moves by what it was sent, as far as is known. Each pose once."""
        if measured is None or not is_usable(measured):
            return True
        return self._following.note(now_s, measured)

    def start(self, now_s: float, motion: MotionState, measured: Setpoint) -> MotionState:
        """`motion`, from where the robot will be when it has carried out what it was sent."""
        here = self._sent.predicted(measured, now_s - self.reaction_time_s, now_s)
        return replace(motion, setpoint=replace(here, gripper=motion.setpoint.gripper))
