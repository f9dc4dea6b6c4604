"""`qvla reference every_instruction`: records pictures that are labelled for each object."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from qvla_reference.cli.demonstrations import record_in_turns
from qvla_ros.cli.task_ids import task_ids_of

HELP = (
    "label the same pictures of libero_object for every object that could be named "
    "(resumes where it stopped)"
)
SEED_BRANCH = 2_000_003  # keeps placements apart from those of the other recorders
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--task_ids", help="scenes of libero_object, for example 0,2-4 (default: all of them)"
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=10,
        help="wandering episodes a scene; each is written as six",
    )
    parser.add_argument(
        "--first_episode", type=int, default=70000, help="number of the first; keeps machines apart"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/demonstrations"), help="folder to write to"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes, each with its own simulator"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED_BRANCH, help="all that is random follows from it"
    )


def run(args: argparse.Namespace) -> int:
    """Records what is missing; returns 0 when every episode is there."""
    from qvla_reference.demonstrations import episode_path
    from qvla_ros.simulation.named_object import SCENE_SUITE

    scenes = task_ids_of(args.task_ids, SCENE_SUITE)
    # The usual object's file is written last: where it is, the other five are.
    return record_in_turns(args, scenes, partial(episode_path, args.out, SCENE_SUITE), record)


def record(args: argparse.Namespace, scene: int, numbers: list[int]) -> int:
    """Records some wandering episodes of a scene in a worker; returns how many."""
    from qvla_reference.demonstrations import episode_path, write_episode
    from qvla_reference.every_instruction import record_every_instruction
    from qvla_reference.expert import PickPlaceExpert
    from qvla_ros.simulation.held_task import held_task
    from qvla_ros.simulation.named_object import SCENE_SUITE

    for number in numbers:
        episodes = record_every_instruction(
            held_task(SCENE_SUITE, scene), PickPlaceExpert(), (args.seed, scene, number)
        )
        for episode in reversed(episodes):
            episode.facts.update(episode=number, seed=args.seed, attempt=0)
            write_episode(
                episode_path(args.out, episode.facts["suite"], episode.facts["task_id"], number),
                episode,
            )
        print(
            f"scene {scene} episode {number}: {sum(len(e.image_steps) for e in episodes)} samples",
            flush=True,
        )
    return len(numbers)
