"""`qvla reference demonstrations`: records the scripted expert, from which the policy learns."""

from __future__ import annotations

import argparse
import concurrent.futures
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_offline.worker_processes import ended_at_interrupt, spawned
from qvla_ros.cli.task_ids import task_ids_of
from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_reference.demonstrations import Demonstration
    from qvla_ros.simulation.libero import LiberoTask

HELP = "record demonstrations of the scripted expert in LIBERO (resumes where it stopped)"
RESUME_WITH = ""
EPISODES_A_TURN = 5  # of one task, then the next: building a scene takes seconds
_ATTEMPTS = 5  # an episode in which the expert fails is dropped and drawn again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--task_suite_name",
        default="libero_object",
        help="libero_object, libero_spatial and the like",
    )
    parser.add_argument(
        "--task_ids", help="tasks of the suite, for example 0,2-4 (default: all of them)"
    )
    parser.add_argument("--episodes", type=int, default=40, help="successful episodes a task")
    parser.add_argument(
        "--first_episode", type=int, default=0, help="number of the first; keeps machines apart"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/demonstrations"), help="folder to write to"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes, each with its own simulator"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="placements, noise and pushes follow from it"
    )


def run(args: argparse.Namespace) -> int:
    """Records what is missing; returns 0 when every episode is there."""
    from qvla_reference.demonstrations import episode_path

    task_ids = task_ids_of(args.task_ids, args.task_suite_name)
    return record_in_turns(
        args, task_ids, partial(episode_path, args.out, args.task_suite_name), record
    )


def record_in_turns(
    args: argparse.Namespace,
    task_ids: Sequence[int],
    place: Callable[[int, int], Path],
    record: Callable[[argparse.Namespace, int, list[int]], int],
) -> int:
    """Lets worker processes `record(args, task_id, numbers)` the episodes that are missing.

    An episode is missing if there is no file at `place(task_id, number)`. args: --episodes,
    --first_episode, --workers and --out are read here. Returns 0 when every episode is there.
    """
    for key in ("episodes", "workers"):
        if getattr(args, key) < 1:
            raise QvlaError(f"--{key}", getattr(args, key), "at least 1", f"pass --{key} 2")
    missing = [
        (task_id, [number for number in turn if not place(task_id, number).exists()])
        for turn in turns(args.first_episode, args.episodes)
        for task_id in task_ids
    ]
    total = sum(len(numbers) for _, numbers in missing)
    wanted = len(task_ids) * args.episodes
    print(
        f"{wanted - total} of {wanted} episodes are there; recording {total} to {args.out}",
        flush=True,
    )
    started = time.monotonic()
    done = 0
    pool = spawned(args.workers)
    try:
        with ended_at_interrupt():  # episodes that are written stay, those under way go
            jobs = [pool.submit(record, args, *job) for job in missing if job[1]]
            for job in concurrent.futures.as_completed(jobs):
                done += job.result()
                left_s = (time.monotonic() - started) / done * (total - done)
                print(f"[{done}/{total}] about {left_s / 60:.0f} min left", flush=True)
    finally:  # an error lets the turns under way finish, and keeps them
        pool.shutdown(wait=True, cancel_futures=True)
    return 0


def turns(first_episode: int, episodes: int) -> list[range]:
    """Yields the episode numbers, EPISODES_A_TURN at a time."""
    last = first_episode + episodes
    return [
        range(start, min(start + EPISODES_A_TURN, last))
        for start in range(first_episode, last, EPISODES_A_TURN)
    ]


def record(args: argparse.Namespace, task_id: int, numbers: list[int]) -> int:
    """Records some episodes of a task, each into its file, and prints a line about each.

    Returns how many. Runs in a worker.
    """
    from qvla_reference.demonstrations import episode_path, write_episode
    from qvla_ros.simulation.held_task import held_task

    suite = args.task_suite_name
    seed = args.seed
    for number in numbers:
        started = time.monotonic()
        recorded, attempt = _record_success(held_task(suite, task_id), (seed, task_id, number))
        recorded.facts.update(episode=number, seed=seed, attempt=attempt)
        write_episode(episode_path(args.out, suite, task_id, number), recorded)
        print(
            f"{suite} task {task_id} episode {number}: {len(recorded)} steps, "
            f"{len(recorded.image_steps)} samples, "
            f"{time.monotonic() - started:.1f} s",
            flush=True,
        )
    return len(numbers)


def _record_success(task: LiberoTask, seed: tuple[int, ...]) -> tuple[Demonstration, int]:
    from qvla_reference.demonstrations import record_episode
    from qvla_reference.expert import PickPlaceExpert

    for attempt in range(_ATTEMPTS):
        recorded = record_episode(task, PickPlaceExpert(), (*seed, attempt))
        if recorded is not None:
            return recorded, attempt
    expected = f"a success in {_ATTEMPTS} attempts"
    fix = "choose a task the expert can do"
    raise QvlaError(
        f"{task.suite} task {task.task_index}, seed {seed}", "failures only", expected, fix
    )
