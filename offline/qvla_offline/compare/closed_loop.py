"""Runs the episodes of a comparison on workers, and keeps each in a log as it ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from qvla_offline.compare.episode import run_job
from qvla_offline.compare.starts import Start
from qvla_offline.workers.worker import Worker
from qvla_ros.bundle import Bundle
from qvla_ros.evaluation.runner import camera_size, max_steps
from qvla_ros.simulation import fake
from qvla_ros.simulation.episode_log import EpisodeLog
from qvla_ros.simulation.libero import SUITE_MAX_STEPS

_MAX_STEPS = {**SUITE_MAX_STEPS, fake.SUITE: fake.MAX_STEPS}
Record = Mapping[str, Any]  # an episode as the LIBERO bridge logs it, and its path and gripper


@dataclass(frozen=True)
class ClosedLoop:
    """The episodes of a comparison: every policy from every start.

    policies: name -> bundle. seed: fixes what the initial states leave open.
    """

    policies: Mapping[str, Bundle]
    starts: Sequence[Start]
    backend: str = "onnxruntime"
    seed: int = 0

    def key(self, start: Start, policy: str) -> dict[str, Any]:
        """What makes two episodes the same one."""
        bundle = self.policies[policy]
        return {
            "task_suite_name": start.suite,
            "task_id": start.task_id,
            "init_state": start.init_state,
            "seed": self.seed,
            "max_steps": max_steps([bundle], start.suite) or _MAX_STEPS[start.suite],
            "policy": policy,
            "bundle_id": bundle.bundle_id,
        }


def run_missing(
    plan: ClosedLoop, log: EpisodeLog, workers: Sequence[Worker], on_record: Callable[[str], None]
) -> None:
    """Runs what the log lacks; a worker runs all policies of a start one after the other.

    on_record: called with a line about each episode. Whatever ends this, Ctrl-C too, waits for the
    episodes under way, which are kept.
    """
    work = _Work(plan, log)
    size = camera_size(plan.policies.values())

    def drive(worker: Worker) -> None:
        while (missing := work.take()) is not None:
            start, policies = missing
            for policy in policies:
                if work.stopped:
                    return
                bundle = plan.policies[policy].directory.resolve()
                key = plan.key(start, policy)
                course = worker.call(
                    run_job, bundle, plan.backend, start, plan.seed, size, key["max_steps"]
                )
                on_record(work.finish({**key, **course}))

    with ThreadPoolExecutor(len(workers)) as threads:
        try:
            for finished in [threads.submit(drive, worker) for worker in workers]:
                finished.result()
        except BaseException:
            work.stopped = True
            on_record("stopping; episodes under way are finished. The same command goes on later.")
            raise


class _Work:
    """The starts still to run. Several threads take and finish."""

    def __init__(self, plan: ClosedLoop, log: EpisodeLog) -> None:
        self.stopped = False
        self._log = log
        self._lock = threading.Lock()
        lacking = {
            start: [p for p in plan.policies if log.find(**plan.key(start, p)) is None]
            for start in plan.starts
        }
        self._starts = deque((start, some) for start, some in lacking.items() if some)
        self._total = sum(map(len, lacking.values()))
        self._done = 0
        self._began_s = time.monotonic()

    def take(self) -> tuple[Start, list[str]] | None:
        with self._lock:
            return self._starts.popleft() if self._starts and not self.stopped else None

    def finish(self, record: Record) -> str:
        """Logs an episode; returns a line about it and what is left."""
        with self._lock:
            self._log.append(record)
            self._done += 1
            spent_s = time.monotonic() - self._began_s
            left_min = spent_s / self._done * (self._total - self._done) / 60
        outcome = "solved" if record["success"] else "failed"
        return (
            f"[{self._done}/{self._total}, {left_min:.0f} min left] {record['policy']}: "
            f"{record['task_suite_name']} task {record['task_id']} state {record['init_state']}: "
            f"{outcome} in {record['steps']} steps"
        )
