"""`qvla reference dagger`: records episodes that the policy drives and the expert labels."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from qvla_ros.cli.task_ids import task_ids_of

HELP = (
    "record episodes that the policy drives and the expert labels (DAgger); stops at "
    "--episodes or Ctrl-C"
)
SEED_BRANCH = 1_000_003  # keeps placements apart from those of `qvla reference demonstrations`
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained_checkpoint",
        type=Path,
        default=Path("reference_policy"),
        help="read anew when it changes",
    )
    parser.add_argument(
        "--task_suite_names", default="libero_object", help="comma-separated suites"
    )
    parser.add_argument(
        "--task_ids", default="all", help="tasks of each suite, for example 0,2-4, or all"
    )
    parser.add_argument("--episodes", type=int, default=100, help="episodes a task")
    parser.add_argument(
        "--first_episode", type=int, default=50000, help="number of the first; keeps workers apart"
    )
    parser.add_argument(
        "--expert_share", type=float, default=0.2, help="share of chunks that the expert executes"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/demonstrations"), help="folder of all episodes"
    )


def run(args: argparse.Namespace) -> int:
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_reference.cli.demonstrations import turns
    from qvla_reference.dagger import record_learner_episode
    from qvla_reference.demonstrations import episode_path, write_episode
    from qvla_reference.expert import PickPlaceExpert
    from qvla_reference.rollout import load_learner
    from qvla_ros.simulation.held_task import held_task

    suites = args.task_suite_names.split(",")
    ids = None if args.task_ids == "all" else args.task_ids
    tasks = [(suite, task_id) for suite in suites for task_id in task_ids_of(ids, suite)]
    learner = None
    loaded_s = 0.0
    for numbers in turns(args.first_episode, args.episodes):
        for suite, task_id in tasks:
            for number in numbers:
                path = episode_path(args.out, suite, task_id, number)
                if path.exists():
                    continue
                changed_s = args.pretrained_checkpoint.stat().st_mtime
                if learner is None or changed_s != loaded_s:
                    learner = load_learner(args.pretrained_checkpoint)
                    loaded_s = changed_s
                started = time.monotonic()
                seed = (SEED_BRANCH, task_id, number)
                task = held_task(suite, task_id)
                recorded = record_learner_episode(
                    task, PickPlaceExpert(), learner, seed, args.expert_share
                )
                recorded.facts.update(episode=number, seed=SEED_BRANCH, attempt=0)
                write_episode(path, recorded)
                print(
                    f"{suite} task {task_id} episode {number}: policy of step "
                    f"{learner.checkpoint.step}, success step "
                    f"{recorded.facts['success_step']}, {len(recorded.image_steps)} samples, "
                    f"{time.monotonic() - started:.1f} s",
                    flush=True,
                )
    return 0
