"""`qvla dagger`: the policy in training drives, the expert says what it should have done; more data where it errs."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

HELP = "record episodes that the policy drives and the expert labels (DAgger); stops at --episodes or Ctrl-C"
EPISODES_A_TURN = 5  # of one task, then the next: a simulator holds 0.9 GB, so there is one at a time
SEED_BRANCH = 1_000_003  # keeps placements apart from those of `qvla demonstrations`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained_checkpoint", type=Path, default=Path("reference_policy"), help="read anew when it changes"
    )
    parser.add_argument("--task_suite_name", default="libero_object")
    parser.add_argument("--task_ids", default="7,8,9", help="comma-separated task indices of the suite")
    parser.add_argument("--episodes", type=int, default=100, help="episodes a task")
    parser.add_argument("--first_episode", type=int, default=50000, help="number of the first; keeps workers apart")
    parser.add_argument("--expert_share", type=float, default=0.2, help="share of chunks that the expert executes")
    parser.add_argument("--out", type=Path, default=Path("data/demonstrations"), help="folder of all episodes")


def run(args: argparse.Namespace) -> int:
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_offline.reference.dagger import record_learner_episode
    from qvla_offline.reference.demonstrations import episode_path, write_episode
    from qvla_offline.reference.expert import PickPlaceExpert
    from qvla_offline.reference.rollout import load_learner

    from qvla_ros.simulation.libero import LiberoTask

    task_ids = [int(item) for item in args.task_ids.split(",")]
    last = args.first_episode + args.episodes
    learner, loaded_s = None, 0.0
    for first in range(args.first_episode, last, EPISODES_A_TURN):
        for task_id in task_ids:
            numbers = range(first, min(first + EPISODES_A_TURN, last))
            paths = {number: episode_path(args.out, args.task_suite_name, task_id, number) for number in numbers}
            missing = {number: path for number, path in paths.items() if not path.exists()}
            if not missing:
                continue
            changed_s = args.pretrained_checkpoint.stat().st_mtime
            if learner is None or changed_s != loaded_s:
                learner, loaded_s = load_learner(args.pretrained_checkpoint), changed_s
            with LiberoTask(args.task_suite_name, task_id) as task:
                for number, path in missing.items():
                    started = time.monotonic()
                    seed = (SEED_BRANCH, task_id, number)
                    recorded = record_learner_episode(task, PickPlaceExpert(), learner, seed, args.expert_share)
                    recorded.facts.update(episode=number, seed=SEED_BRANCH, attempt=0)
                    write_episode(path, recorded)
                    print(
                        f"task {task_id} episode {number}: policy of step {learner.checkpoint.step}, success step "
                        f"{recorded.facts['success_step']}, {len(recorded.image_steps)} samples, "
                        f"{time.monotonic() - started:.1f} s",
                        flush=True,
                    )
    return 0
