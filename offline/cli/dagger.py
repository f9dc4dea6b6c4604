"""`qvla dagger`: the policy in training drives, the expert says what it should have done; more data where it errs."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

HELP = "record episodes that the policy drives and the expert labels (DAgger); stops at --episodes or Ctrl-C"
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
    tasks = {task_id: LiberoTask(args.task_suite_name, task_id) for task_id in task_ids}
    learner, loaded_s = None, 0.0
    for episode in range(args.first_episode, args.first_episode + args.episodes):
        for task_id in task_ids:
            path = episode_path(args.out, args.task_suite_name, task_id, episode)
            if path.exists():
                continue
            changed_s = args.pretrained_checkpoint.stat().st_mtime
            if learner is None or changed_s != loaded_s:
                learner, loaded_s = load_learner(args.pretrained_checkpoint), changed_s
            started = time.monotonic()
            seed = (SEED_BRANCH, task_id, episode)
            recorded = record_learner_episode(tasks[task_id], PickPlaceExpert(), learner, seed, args.expert_share)
            recorded.facts.update(episode=episode, seed=SEED_BRANCH, attempt=0)
            write_episode(path, recorded)
            print(
                f"task {task_id} episode {episode}: policy of step {learner.checkpoint.step}, success step "
                f"{recorded.facts['success_step']}, {len(recorded.image_steps)} samples, "
                f"{time.monotonic() - started:.1f} s",
                flush=True,
            )
    return 0
