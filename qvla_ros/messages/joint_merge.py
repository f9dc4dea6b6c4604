"""Puts a robot's joints together where several drivers share one topic.

A gripper's driver that publishes on the arm's joint_states sends messages of its own joints alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import MAX_JOINTS, joint_positions

WINDOW_S = 0.25  # how old a joint of another message may be: that of a gripper at 4 Hz


class JointMerge:
    """needed: the joints that a complete set has. arm: those of them that say how old it is; empty:
    all. window_s: how old a joint of another message may be. Not thread-safe.

    stamp_ns: of the last set that `add` gave: that of its oldest joint of the arm, so that a
    message of the gripper alone makes old joints of the arm no newer.
    """

    def __init__(
        self, needed: Sequence[str], arm: Sequence[str] = (), window_s: float = WINDOW_S
    ) -> None:
        self.stamp_ns = 0
        self._needed = tuple(needed)
        self._arm = tuple(arm) or self._needed
        self._window_s = window_s
        self._known: dict[str, tuple[float, int]] = {}  # position and stamp, ns

    def is_foreign(self, message: Any) -> bool:
        """Whether it has other joints alone, and all that are needed come from elsewhere."""
        return len(self._known) == len(self._needed) and not self._in(message)

    def add(self, message: Any, topic: str, stamp_ns: int) -> dict[str, float]:
        """Adds a sensor_msgs/JointState; all needed joints by name, rad or m, as of now.

        QvlaError as joint_positions, also where a joint that the message lacks was not heard of
        within window_s.
        """
        here = self._in(message)
        positions = joint_positions(message, topic, here)
        self._known |= {name: (positions[name], stamp_ns) for name in here}
        absent = [name for name in self._needed if name not in here]
        if any(name not in self._known for name in absent):
            return joint_positions(message, topic, self._needed)  # which names those
        for name in absent:
            position, known_ns = self._known[name]
            age_s = abs(stamp_ns - known_ns) * 1e-9
            if age_s > self._window_s:
                found = f"{name} {age_s:.3f} s ago"
                fix = "check the driver that publishes it"
                expected = f"it within {self._window_s:g} s"
                raise QvlaError(f"joints on {topic}", found, expected, fix)
            positions[name] = position
        self.stamp_ns = min(self._known[name][1] for name in self._arm)
        return positions

    def _in(self, message: Any) -> list[str]:
        names = set(message.name[: MAX_JOINTS + 1])
        return [name for name in self._needed if name in names]
