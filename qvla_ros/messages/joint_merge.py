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
    """needed: the joints that a complete set has. Not thread-safe."""

    def __init__(self, needed: Sequence[str]) -> None:
        self._needed = tuple(needed)
        self._known: dict[str, tuple[float, int]] = {}  # position and stamp, ns

    def is_foreign(self, message: Any) -> bool:
        """Whether it has other joints alone, and all that are needed come from elsewhere."""
        return len(self._known) == len(self._needed) and not self._in(message)

    def add(self, message: Any, topic: str, stamp_ns: int) -> dict[str, float]:
        """Adds a sensor_msgs/JointState; all needed joints by name, rad or m, as of now.

        QvlaError as joint_positions, also where a joint that the message lacks was not heard of
        within WINDOW_S.
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
            if age_s > WINDOW_S:
                found = f"{name} {age_s:.3f} s ago"
                fix = "check the driver that publishes it"
                raise QvlaError(f"joints on {topic}", found, f"it within {WINDOW_S:g} s", fix)
            positions[name] = position
        return positions

    def _in(self, message: Any) -> list[str]:
        names = set(message.name[: MAX_JOINTS + 1])
        return [name for name in self._needed if name in names]
