"""`qvla evaluate_reference`: closed-loop success of a checkpoint in LIBERO, without ROS, to follow a training run."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvla_ros.statistics import wilson_interval

if TYPE_CHECKING:
    from qvla_ros.simulation.libero import LiberoTask

HELP = "closed-loop success of a float checkpoint in LIBERO without ROS (resumes; official initial states)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pretrained_checkpoint", type=Path, default=Path("reference_policy"))
    parser.add_argument("--task_suite_name", default="libero_object")
    parser.add_argument("--task_ids", default="7,8,9", help="comma-separated task indices of the suite")
    parser.add_argument("--num_trials_per_task", type=int, default=20, help="official initial states 0 to this, less 1")
    parser.add_argument("--first_init_state", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/training/evaluation.jsonl"), help="one line an episode")
    parser.add_argument("--workers", type=int, default=2)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.checkpoints.io import load_checkpoint

    step = load_checkpoint(args.pretrained_checkpoint).step
    task_ids = [int(item) for item in args.task_ids.split(",")]
    states = range(args.first_init_state, args.first_init_state + args.num_trials_per_task)
    done = [entry for entry in read_results(args.out) if entry["checkpoint_step"] == step]
    known = {(entry["task_id"], entry["init_state"]) for entry in done if entry["suite"] == args.task_suite_name}
    jobs = [(task, state) for task in task_ids for state in states if (task, state) not in known]
    print(f"checkpoint step {step}: {len(jobs)} episodes to run, {len(known)} known")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # a fork would share the GL driver's state
    pool = concurrent.futures.ProcessPoolExecutor(args.workers, mp_context=context)
    try:
        waiting = [pool.submit(evaluate, args.pretrained_checkpoint, args.task_suite_name, *job) for job in jobs]
        for future in concurrent.futures.as_completed(waiting):
            result = future.result()
            with open(args.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    print_table(entry for entry in read_results(args.out) if entry["checkpoint_step"] == step)
    return 0


def evaluate(checkpoint: Path, suite: str, task_id: int, init_state: int) -> dict[str, Any]:
    """Run one episode in this worker process."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_offline.reference.rollout import load_learner, run_episode

    if "learner" not in _held:
        _held["learner"] = load_learner(checkpoint)
    return asdict(run_episode(held_task(suite, task_id), _held["learner"], init_state))


def held_task(suite: str, task_id: int) -> LiberoTask:
    """The simulator of a task, kept until another is asked for: building one takes seconds, and each holds 0.9 GB."""
    from qvla_ros.simulation.libero import LiberoTask

    if _held.get("task_key") != (suite, task_id):
        if "task" in _held:
            _held["task"].close()
        _held.update(task=LiberoTask(suite, task_id), task_key=(suite, task_id))
    return _held["task"]


_held: dict[str, Any] = {}  # of one worker process


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file, none if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def print_table(entries: Iterable[dict[str, Any]]) -> None:
    """Success per task and in all, with the 95 % Wilson interval."""
    groups: dict[str, list[bool]] = {}
    for entry in entries:
        for name in (f"{entry['suite']} task {entry['task_id']}", "all"):
            groups.setdefault(name, []).append(bool(entry["success"]))
    for name, successes in sorted(groups.items(), reverse=True):
        low, high = wilson_interval(sum(successes), len(successes))
        rate = sum(successes) / len(successes)
        print(f"{name:24s} {sum(successes):3d}/{len(successes):<3d} {rate:6.1%}  95 % {low:.1%} to {high:.1%}")
