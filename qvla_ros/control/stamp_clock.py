"""Gives moments of the steady clock in ROS time, steadily. Pure.

Motion is planned on the steady clock and stamped in ROS time. The two are read one after the other,
and on a busy machine a thread may wait in between: a stamp that is a millisecond off moves an arm
at 0.5 m/s by half a millimetre at once. Between two readings the clocks part by very little, so
what differs by more is a pause or a step of ROS time.
"""

from __future__ import annotations

CLOSE_S = 2e-4  # between the two readings of the steady clock, for the one between to be believed
STEP_S = 2e-3  # by which ROS time has been set anew
SLEW_S = 2e-6  # by which it is followed a reading: 200 ppm at 100 Hz


class StampClock:
    """Follows what ROS time is ahead of the steady clock. Not thread-safe."""

    def __init__(self) -> None:
        self._ahead_ns: float | None = None

    def stamp_ns(self, before_s: float, ros_ns: int, after_s: float) -> int:
        """The ROS time of `before_s`; ros_ns was read between two readings of the steady clock."""
        seen_ns = ros_ns - 0.5e9 * (before_s + after_s)
        is_close = after_s - before_s <= CLOSE_S
        if self._ahead_ns is None:
            self._ahead_ns = seen_ns
        elif is_close:
            parted_ns = seen_ns - self._ahead_ns
            if abs(parted_ns) > 1e9 * STEP_S:
                self._ahead_ns = seen_ns
            else:
                self._ahead_ns += min(max(parted_ns, -1e9 * SLEW_S), 1e9 * SLEW_S)
        return round(1e9 * before_s + self._ahead_ns)
