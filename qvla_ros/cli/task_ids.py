"""Which tasks of a suite are meant: one syntax for every verb."""

from __future__ import annotations

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.specification import SUITE_TASK_COUNTS

FAKE_SUITE = "fake"  # no physics, one task


def task_ids_of(text: str | None, suite: str) -> tuple[int, ...]:
    """The tasks that `text` names, in its order; all of the suite without a text."""
    counts = {**SUITE_TASK_COUNTS, FAKE_SUITE: 1}
    if suite not in counts:
        raise QvlaError(
            "task_suite_name", suite, f"one of {', '.join(counts)}", "name one of these suites"
        )
    if text is None:
        return tuple(range(counts[suite]))
    ids = parse_task_ids(text)
    if max(ids) >= counts[suite]:
        expected = f"numbers from 0 to {counts[suite] - 1} in {suite}"
        raise QvlaError("task_ids", text, expected, "leave --task_ids out to take all tasks")
    return ids


def parse_task_ids(text: str) -> tuple[int, ...]:
    """(0, 2, 3, 4) from "0,2-4"."""
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            ids += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        ids = []
    if not ids or len(set(ids)) != len(ids) or min(ids) < 0:
        fix = "for example --task_ids 0,1,2 or --task_ids 0-9"
        raise QvlaError(
            "task_ids", text, "distinct task numbers, comma-separated, or first-last", fix
        )
    return tuple(ids)
