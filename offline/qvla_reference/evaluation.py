"""Keeps the closed-loop results of checkpoints in training, one line an episode.

Each line names the weights that it belongs to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.statistics import wilson_interval

Task = tuple[str, int]  # (suite, task index)
Entry = Mapping[str, Any]  # an EpisodeResult (qvla_reference.rollout) by its fields


def read_results(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a results file; none if there is no file."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )


def newest(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the results of the checkpoint with the highest step.

    Of several with that step, those of the one that was run last.
    """
    steps = [entry["checkpoint_step"] for entry in entries if entry["checkpoint_step"] is not None]
    if not steps:
        return list(entries)
    of_step = [entry for entry in entries if entry["checkpoint_step"] == max(steps)]
    return [entry for entry in of_step if entry.get("checkpoint") == of_step[-1].get("checkpoint")]


class Jobs:
    """Hands out the episodes still to run, (suite, task, initial state).

    A worker keeps the task of its simulator as long as there is one to run.
    """

    def __init__(self, missing: Mapping[Task, Sequence[int]]) -> None:
        self._pending = {task: list(states) for task, states in missing.items() if states}
        self._running: dict[int, Task] = {}  # worker -> the task its simulator holds
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(map(len, self._pending.values()))

    def take(self, worker: int) -> tuple[str, int, int] | None:
        """Returns the next episode for `worker`, or None.

        It is of the worker's task, else of a task that no worker has, else of the longest.
        """
        with self._lock:
            if not self._pending:
                return None
            held = self._running.get(worker)
            if held not in self._pending:
                others = {task for other, task in self._running.items() if other != worker}
                held = max(
                    self._pending, key=lambda task: (task not in others, len(self._pending[task]))
                )
            self._running[worker] = held
            states = self._pending[held]
            state = states.pop(0)
            if not states:
                del self._pending[held]
            return *held, state

    def drop(self) -> None:
        """Stops handing out episodes; those under way are the last."""
        with self._lock:
            self._pending.clear()


def trials_of(text: str, suites: Sequence[str]) -> list[int]:
    """Reads the episodes a task of each suite: one number for all, or one each: "20,20,2"."""
    try:
        counts = [int(item) for item in text.split(",")]
    except ValueError:
        counts = []
    if len(counts) not in (1, len(suites)) or min(counts) < 1:
        expected = f"a number above 0, or {len(suites)} of them, one a suite"
        raise QvlaError(
            "num_trials_per_task", text, expected, "for example --num_trials_per_task 20"
        )
    return counts * len(suites) if len(counts) == 1 else counts


def success_table(entries: Iterable[Entry]) -> list[str]:
    """Returns lines with the success of each suite and task, with 95 % Wilson intervals.

    A suite's percentage is the mean over its tasks; its interval is that of all its episodes taken
    together.
    """
    suites: dict[str, dict[int, list[bool]]] = {}
    for entry in entries:
        suites.setdefault(entry["suite"], {}).setdefault(entry["task_id"], []).append(
            bool(entry["success"])
        )
    lines = []
    for suite, tasks in sorted(suites.items()):
        rates = {task: sum(successes) / len(successes) for task, successes in sorted(tasks.items())}
        pooled = [success for successes in tasks.values() for success in successes]
        worst = min(rates, key=rates.__getitem__)
        mean = sum(rates.values()) / len(rates)
        note = f"mean of {len(rates)} tasks; lowest {rates[worst]:.1%}, task {worst}"
        lines.append(f"{_row(suite, pooled, mean)}  {note}")
        lines += [_row(f"  task {task}", tasks[task], rate) for task, rate in rates.items()]
    return lines


def _row(name: str, successes: Sequence[bool], rate: float) -> str:
    low, high = wilson_interval(sum(successes), len(successes))
    counted = f"{sum(successes)}/{len(successes)}"
    return f"{name:24s} {counted:>9s} {rate:6.1%}  95 % {low:.1%} to {high:.1%}"
