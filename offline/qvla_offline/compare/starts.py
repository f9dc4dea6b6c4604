"""The starts of episodes, in an order whose every beginning is balanced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qvla_ros.errors import QvlaError
from qvla_ros.simulation import fake
from qvla_ros.simulation.specification import SUITE_TASK_COUNTS

FLOAT = "float"  # the name of the policy that the others are compared with
INIT_STATES = 50  # official ones, of every task of LIBERO
_TASKS = {**SUITE_TASK_COUNTS, fake.SUITE: 1}


@dataclass(frozen=True)
class Start:
    """What is the same for every policy that runs an episode from it."""

    suite: str
    task_id: int
    init_state: int


def round_robin(episodes: Mapping[str, int]) -> list[Start]:
    """Returns that many starts of each suite: suites in turn, in each its tasks in turn.

    Then the next initial state. episodes: suite -> number; QvlaError if it has not so many.
    """
    for suite, number in episodes.items():
        if suite not in _TASKS:
            expected = f"out of {', '.join(_TASKS)}"
            raise QvlaError("suites", suite, expected, "name some of these with --suites")
        most = _TASKS[suite] * INIT_STATES
        if not 1 <= number <= most:
            fix = "choose with --episodes, e.g. --episodes 200"
            raise QvlaError("episodes", number, f"1 to {most} in {suite}", fix)
    return [
        Start(suite, index % _TASKS[suite], index // _TASKS[suite])
        for index in range(max(episodes.values(), default=0))
        for suite in episodes
        if index < episodes[suite]
    ]


def episodes_of(text: str, suites: str) -> dict[str, int]:
    """Reads --episodes and --suites: {suite: number}, from one number for all or one each."""
    names = [name for name in suites.split(",") if name]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if len(counts) not in (1, len(names)) or len(set(names)) != len(names):
        raise QvlaError(
            "episodes and suites",
            f"{text} of {suites}",
            "distinct suites, and one number for all of them or one each",
            "for example --episodes 200,200,100 "
            "--suites libero_object,libero_spatial,libero_object_named",
        )
    return dict(zip(names, counts * (len(names) // len(counts)), strict=True))
