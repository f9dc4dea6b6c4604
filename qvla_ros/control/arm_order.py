"""Decides between requests to arm and to stop that waited together: the stop wins.

A node that stalls finds its requests in the order of its services, not in that of the calls. So a
stop refuses what waits to be armed when it is handled, and what is handled just after it: whoever
called for that may not have known of the stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qvla_ros.errors import QvlaError

JUST_AFTER_S = 0.1


class ArmOrder:
    """refuse_waiting: refuses all requests to arm that have come and are not handled yet.

    Times are seconds of the steady clock.
    """

    def __init__(self, refuse_waiting: Callable[[], None]) -> None:
        self._refuse_waiting = refuse_waiting
        self._stopped_s = -math.inf

    def stop(self, now_s: float) -> None:
        """A request to stop is handled now."""
        self._stopped_s = now_s
        self._refuse_waiting()

    def require_no_stop(self, now_s: float) -> None:
        """Raises QvlaError where a request to arm that is handled now loses against a stop."""
        since_s = now_s - self._stopped_s
        if since_s <= JUST_AFTER_S:
            found = f"a request to stop {1e3 * since_s:.0f} ms ago"
            fix = "call ~/arm again, if the arm is to move"
            raise QvlaError("arm", found, f"none for {JUST_AFTER_S:g} s", fix)


def lost_to_stop() -> QvlaError:
    """The error of a request to arm that waited while a stop was handled."""
    fix = "call ~/arm again, if the arm is to move"
    return QvlaError("arm", "a request to stop at the same time", "none", fix)
