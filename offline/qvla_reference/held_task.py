"""The one simulator that a worker process holds: building one takes seconds, and each holds 0.9 GB."""

from __future__ import annotations

from qvla_ros.simulation.libero import LiberoTask

_held: list[LiberoTask] = []  # of this process: none or one


def held_task(suite: str, task_id: int) -> LiberoTask:
    """The simulator of a task, kept until another is asked for."""
    if _held and (_held[0].suite, _held[0].task_index) == (suite, task_id):
        return _held[0]
    while _held:
        _held.pop().close()
    _held.append(LiberoTask(suite, task_id))
    return _held[0]
