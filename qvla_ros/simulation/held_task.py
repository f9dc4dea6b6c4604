"""Keeps the one simulator of a worker process: one takes seconds to build and 0.9 GB."""

from __future__ import annotations

from qvla_ros.simulation.fake import SUITE, FakeTask
from qvla_ros.simulation.libero import LiberoTask

_held: dict[tuple[object, ...], LiberoTask | FakeTask] = {}  # of this process: none or one


def held_task(suite: str, task_id: int) -> LiberoTask:
    """Returns the simulator of a task, which is kept until another one is asked for."""
    task = held_simulation(suite, task_id)
    assert isinstance(task, LiberoTask)
    return task


def held_simulation(
    suite: str, task_id: int, camera_size: int = 256, max_steps: int | None = None
) -> LiberoTask | FakeTask:
    """As held_task, with images and a length of choice; the suite may be the fake one."""
    key = (suite, task_id, camera_size, max_steps)
    if key not in _held:
        while _held:
            _held.popitem()[1].close()
        kind = FakeTask if suite == SUITE else LiberoTask
        _held[key] = kind(suite, task_id, camera_size, max_steps)
    return _held[key]
