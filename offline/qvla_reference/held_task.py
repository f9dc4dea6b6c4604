"""Keeps the one simulator of a worker process: one takes seconds to build and 0.9 GB."""

from __future__ import annotations

from qvla_ros.simulation.libero import LiberoTask

_held: list[LiberoTask] = []  # of this process: none or one


def held_task(suite: str, task_id: int) -> LiberoTask:
    """Returns the simulator of a task, which is kept until another is asked for."""
    if _held and (_held[0].suite, _held[0].task_index) == (suite, task_id):
        return _held[0]
    while _held:
        _held.pop().close()
    _held.append(LiberoTask(suite, task_id))
    return _held[0]
