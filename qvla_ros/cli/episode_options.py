"""Options about which episodes to run, the same for every verb that runs them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from qvla_ros.cli.task_ids import task_ids_of
from qvla_ros.engines import BACKENDS
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.runner import EvaluationPlan
from qvla_ros.simulation.real_time import RealTime

ALL_TASKS = "tasks of the suite, for example 0,2-4 (default: all of them)"


def add_bundle_option(parser: argparse.ArgumentParser) -> None:
    """Adds --bundle, once for each bundle; parse_bundles reads it."""
    parser.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a bundle and the name it gets in the table; repeat it to compare",
    )


def add_episode_options(
    parser: argparse.ArgumentParser,
    num_trials_per_task: int,
    trials_help: str,
    task_ids: str | None = None,
    task_ids_help: str = ALL_TASKS,
) -> None:
    """Adds the options that choose tasks and initial states, with a verb's own defaults."""
    parser.add_argument(
        "--task_suite_name",
        default="libero_object",
        help="LIBERO suite; fake: no physics, to try the wiring",
    )
    parser.add_argument("--task_ids", default=task_ids, help=task_ids_help)
    parser.add_argument(
        "--num_trials_per_task", type=int, default=num_trials_per_task, help=trials_help
    )
    parser.add_argument(
        "--init_state_offset", type=int, default=0, help="first official initial state"
    )


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the nodes that run the episodes."""
    parser.add_argument(
        "--seed", type=int, default=0, help="fixes what the initial states leave open"
    )
    parser.add_argument(
        "--backend", default="onnxruntime", choices=BACKENDS, help="engine of the policy nodes"
    )


def plan_of(
    args: argparse.Namespace, bundles: Mapping[str, Path], video: bool, real_time: RealTime | None
) -> EvaluationPlan:
    """Returns the plan that the options of all three functions describe; QvlaError if none can."""
    return EvaluationPlan(
        bundles=bundles,
        task_suite_name=args.task_suite_name,
        task_ids=task_ids_of(args.task_ids, args.task_suite_name),
        num_trials_per_task=args.num_trials_per_task,
        init_state_offset=args.init_state_offset,
        backend=args.backend,
        seed=args.seed,
        video=video,
        real_time=real_time,
    )


def parse_bundles(pairs: Sequence[str]) -> dict[str, Path]:
    """Returns {"quantized": Path("out/quantized")} from ["quantized=out/quantized"]."""
    bundles: dict[str, Path] = {}
    for text in pairs:
        name, equals, directory = text.partition("=")
        if not (name and equals and directory) or name in bundles:
            raise QvlaError(
                "bundle",
                text,
                "NAME=DIR, each name once",
                "for example --bundle quantized=out/quantized",
            )
        bundles[name] = Path(directory)
    return bundles
