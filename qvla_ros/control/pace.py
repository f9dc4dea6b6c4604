"""Limits how often a robot is commanded.

Never twice within half a period, and over any stretch of time once a period, plus two.
"""

from __future__ import annotations

import math

# Of a period: how much sooner than due a command may go out, because the one before may have been
# late.
EARLY = 0.5


class Pace:
    """Whether a command may go out now. Times are seconds of the steady clock."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s = -math.inf
        self._due_s = -math.inf

    def allows(self, steady_s: float) -> bool:
        """False for what would come too soon, as in a burst of late ticks."""
        due_s = self._due_s - EARLY * self._period_s
        return steady_s >= max(due_s, self._last_s + (1.0 - EARLY) * self._period_s)

    def note(self, steady_s: float) -> None:
        """Sets when the next command is due, after one that was sent at `steady_s`."""
        self._due_s = max(self._due_s, steady_s - EARLY * self._period_s) + self._period_s
        self._last_s = steady_s
