"""A process that work is given to, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from qvla_ros.errors import QvlaError


class Worker(Protocol):
    """One process. It does one job at a time and keeps what its modules hold between jobs."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns function(*arguments), computed in the process; raises what it raises there.

        function: of an installed module; the arguments can be pickled. QvlaError if the process
        ended meanwhile.
        """
        ...


def lost(what: str, reason: object) -> QvlaError:
    """The error of a process that ended with a job under way."""
    fix = "run the same command again, with fewer --workers if the machine ran out of memory"
    return QvlaError(what, reason, "it runs until its job is done", fix)
