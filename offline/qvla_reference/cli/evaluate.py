"""`qvla reference evaluate`: measures a checkpoint's closed-loop success in LIBERO, without ROS."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qvla_offline.worker_processes import ended_at_interrupt, spawned
from qvla_reference.evaluation import Jobs, newest, read_results, success_table, trials_of
from qvla_ros.cli.task_ids import task_ids_of
from qvla_ros.errors import QvlaError

HELP = (
    "closed-loop success of a float checkpoint in LIBERO without ROS (resumes; "
    "official initial states)"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained_checkpoint",
        type=Path,
        default=Path("reference_policy"),
        metavar="DIR",
        help="checkpoint of the policy",
    )
    parser.add_argument(
        "--task_suite_names", default="libero_object", help="comma-separated suites"
    )
    parser.add_argument(
        "--task_ids", default="all", help="tasks of each suite, for example 0,2-4, or all"
    )
    parser.add_argument(
        "--num_trials_per_task",
        default="20",
        help="official initial states 0 to this, less 1; one number, or one a suite",
    )
    parser.add_argument("--first_init_state", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/training/evaluation.jsonl"),
        help="one line an episode",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes, each with its own simulator"
    )
    parser.add_argument(
        "--print_only",
        action="store_true",
        help="print the table of the newest checkpoint in --out",
    )


def run(args: argparse.Namespace) -> int:
    if args.print_only:
        print_newest(args.out)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkpoint"
        checkpoint = take_copy(args.pretrained_checkpoint, copy)
        run_missing(args, copy, checkpoint)
    print_newest(args.out, checkpoint)
    return 0


def take_copy(source: Path, copy: Path) -> str:
    """Copies a checkpoint, so that training may go on exporting to `source`.

    Returns the hash of what was copied.
    """
    from qvla_offline.fingerprint import checkpoint_sha256

    for _ in range(5):
        with contextlib.suppress(OSError, shutil.Error):  # replaced while it was copied
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("calibration*"))
            if checkpoint_sha256(copy) == checkpoint_sha256(source):
                return checkpoint_sha256(copy)
    raise QvlaError(
        "pretrained_checkpoint", source, "a checkpoint that can be read", "check the path"
    )


def run_missing(args: argparse.Namespace, copy: Path, checkpoint: str) -> None:
    """Runs the episodes that have no result yet, and appends a line of results for each."""
    jobs = missing_jobs(
        args, [entry for entry in read_results(args.out) if entry.get("checkpoint") == checkpoint]
    )
    print(
        f"{len(jobs)} episodes of {args.pretrained_checkpoint} ({checkpoint[:12]}) to run",
        flush=True,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    total = len(jobs)
    started = time.monotonic()

    def drive(worker: int) -> None:
        with spawned(1) as process:
            while (job := jobs.take(worker)) is not None:
                result = process.submit(evaluate, copy, checkpoint, *job).result()
                with lock, open(args.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                done = total - len(jobs)
                left_s = (time.monotonic() - started) / done * len(jobs)
                print(f"{json.dumps(result)}; about {left_s / 60:.0f} min left", flush=True)

    with ThreadPoolExecutor(args.workers) as threads:
        try:
            with ended_at_interrupt():
                for finished in [
                    threads.submit(drive, worker) for worker in range(args.workers if total else 0)
                ]:
                    finished.result()
        finally:  # an error lets the episodes under way finish, and keeps them
            jobs.drop()


def missing_jobs(args: argparse.Namespace, done: list[dict[str, Any]]) -> Jobs:
    """Returns the episodes that the options ask for and `done` does not hold."""
    suites = args.task_suite_names.split(",")
    known = {(entry["suite"], entry["task_id"], entry["init_state"]) for entry in done}
    missing = {}
    for suite, trials in zip(suites, trials_of(args.num_trials_per_task, suites), strict=True):
        states = range(args.first_init_state, args.first_init_state + trials)
        for task in task_ids_of(None if args.task_ids == "all" else args.task_ids, suite):
            missing[suite, task] = [state for state in states if (suite, task, state) not in known]
    return Jobs(missing)


def print_newest(path: Path, checkpoint: str | None = None) -> None:
    """Prints the table of one checkpoint's results, the newest one's unless named."""
    entries = read_results(path)
    chosen = (
        newest(entries)
        if checkpoint is None
        else [e for e in entries if e.get("checkpoint") == checkpoint]
    )
    if not chosen:
        raise QvlaError(
            "out", path, "results of `qvla reference evaluate`", "run it without --print_only first"
        )
    first = chosen[0]
    print(
        f"step {first['checkpoint_step']}, weights "
        f"{first.get('checkpoint', 'unknown')[:12]}, {len(chosen)} episodes"
    )
    print("\n".join(success_table(chosen)))


_held: dict[str, Any] = {}  # the learner of one worker process


def evaluate(
    path: Path, checkpoint: str, suite: str, task_id: int, init_state: int
) -> dict[str, Any]:
    """Runs one episode in this worker process."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_reference.rollout import load_learner, run_episode
    from qvla_ros.simulation.held_task import held_task

    if "learner" not in _held:
        _held["learner"] = load_learner(path)
    result = run_episode(held_task(suite, task_id), _held["learner"], init_state)
    return {**asdict(result), "checkpoint": checkpoint}
