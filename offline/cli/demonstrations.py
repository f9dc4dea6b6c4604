"""`qvla demonstrations`: record the scripted expert in LIBERO; the data that the reference policy learns from."""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import signal
import time
from pathlib import Path

from qvla_offline.reference.demonstrations import episode_path, record_episode, write_episode
from qvla_offline.reference.expert import PickPlaceExpert

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoTask

HELP = "record demonstrations of the scripted expert in LIBERO (resumes where it stopped)"
_ATTEMPTS = 5  # an episode in which the expert fails is dropped and drawn again

_tasks: dict[tuple[str, int], LiberoTask] = {}  # of one worker process: building a scene takes seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--task_suite_name", default="libero_object", help="the expert does libero_object only")
    parser.add_argument("--task_ids", default="7,8,9", help="comma-separated task indices of the suite")
    parser.add_argument("--episodes", type=int, default=100, help="successful episodes a task")
    parser.add_argument("--out", type=Path, default=Path("data/demonstrations"), help="folder to write to")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with its own simulator")
    parser.add_argument("--seed", type=int, default=0, help="placements, noise and pushes follow from it")


def run(args: argparse.Namespace) -> int:
    """Record what is missing; 0 when every episode is there."""
    task_ids = _parse_ids(args.task_ids)
    for key in ("episodes", "workers"):
        if getattr(args, key) < 1:
            raise QvlaError(f"--{key}", getattr(args, key), "at least 1", f"pass --{key} 2")
    wanted = [(task_id, episode) for episode in range(args.episodes) for task_id in task_ids]
    missing = [job for job in wanted if not episode_path(args.out, args.task_suite_name, *job).exists()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} episodes are there; recording {len(missing)} to {args.out}")
    if not missing:
        return 0
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")  # a fork would share the GL driver's state
    pool = concurrent.futures.ProcessPoolExecutor(args.workers, mp_context=context, initializer=_ignore_interrupt)
    try:
        jobs = [pool.submit(record, args.out, args.task_suite_name, *job, args.seed) for job in missing]
        for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
            left_s = (time.monotonic() - started) / done * (len(missing) - done)
            print(f"[{done}/{len(missing)}] {job.result()}; about {left_s / 60:.0f} min left", flush=True)
    finally:  # on Ctrl-C the episodes under way are finished and kept
        pool.shutdown(wait=True, cancel_futures=True)
    return 0


def record(out: Path, suite: str, task_id: int, episode: int, seed: int) -> str:
    """Record one episode into its file; returns a line about it. Runs in a worker process."""
    started = time.monotonic()
    if (suite, task_id) not in _tasks:
        _tasks[suite, task_id] = LiberoTask(suite, task_id)
    for attempt in range(_ATTEMPTS):
        recorded = record_episode(_tasks[suite, task_id], PickPlaceExpert(), (seed, task_id, episode, attempt))
        if recorded is not None:
            recorded.facts.update(task_id=task_id, episode=episode, seed=seed, attempt=attempt)
            write_episode(episode_path(out, suite, task_id, episode), recorded)
            seconds = time.monotonic() - started
            images = len(recorded.image_steps)
            return f"task {task_id} episode {episode}: {len(recorded)} steps, {images} samples, {seconds:.1f} s"
    expected = f"a success in {_ATTEMPTS} attempts"
    raise QvlaError(f"task {task_id}, episode {episode}", "failures only", expected, "choose a task the expert can do")


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(item) for item in str(text).split(",")]
    except ValueError as error:
        raise QvlaError("--task_ids", text, "integers between commas", "for example --task_ids 7,8,9") from error


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
