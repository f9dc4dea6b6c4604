"""`qvla compare`: methods by budgets on one checkpoint, by action error and in closed loop."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_offline.cli.options import add_worker_arguments
from qvla_offline.cli.subject_options import (
    add_subject_arguments,
    maker_of,
    robot_of,
    subjects_of,
)
from qvla_ros.atomic import atomic_file

if TYPE_CHECKING:
    from qvla_offline.compare.document import Comparison
    from qvla_offline.compare.starts import Start
    from qvla_offline.error.subjects import Subject, Subjects

HELP = (
    "compare gates, bundles and uniform widths with each other and with float: action error, size "
    "and, with --episodes, success in LIBERO from the same initial states; resumes"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("out/compare"), help="tables and figures")
    parser.add_argument(
        "--episodes",
        help="episodes of every policy in each suite; one number, or one a suite (default: none)",
    )
    parser.add_argument(
        "--suites",
        default="libero_object,libero_spatial,libero_object_named",
        help="comma-separated; tasks and initial states of all suites are taken in turn",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="fixes what the initial states leave open"
    )
    add_worker_arguments(parser, 1, "processes, each with a simulator of 0.9 GB (default: 1)")
    parser.add_argument(
        "--print_only", action="store_true", help="show what --out holds; run nothing"
    )


def run(args: argparse.Namespace) -> int:
    from qvla_offline.compare import document
    from qvla_offline.compare.starts import episodes_of, round_robin

    if args.print_only:
        comparison = document.read(args.out)
        document.write(comparison, args.out)
        show(comparison, args.out)
        return 0
    starts = [] if args.episodes is None else round_robin(episodes_of(args.episodes, args.suites))
    args.out.mkdir(parents=True, exist_ok=True)
    made_by = maker_of(args)
    subjects = subjects_of(args, made_by)
    comparison = _measured(args, made_by, subjects)
    if starts:
        comparison = _driven(args, made_by, subjects, starts, comparison)
    document.write(comparison, args.out)
    show(comparison, args.out)
    return 0


def show(comparison: Comparison, folder: Path) -> None:
    """Prints the tables, and writes them and the figures to `folder`."""
    from qvla_offline.compare.figures import write_figures
    from qvla_offline.compare.tables import csv_text, tables

    found = tables(comparison)
    texts = {
        "tables.md": "\n\n".join(f"{table.caption}\n\n{table.markdown()}" for table in found),
        "tables.tex": "\n\n".join(table.latex() for table in found),
        "numbers.csv": csv_text(comparison).rstrip("\n"),
    }
    for name, text in texts.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")
    print(texts["tables.md"])
    figures = [path.name for path in write_figures(comparison, folder)]
    print(f"\n{folder}: comparison.json, {', '.join([*texts, *figures])}")


def _measured(
    args: argparse.Namespace, made_by: Subjects, subjects: Sequence[Subject]
) -> Comparison:
    """Measures the action errors of all subjects that this folder does not know yet."""
    from qvla_offline.compare.document import Comparison
    from qvla_offline.compare.policies import measured_policies
    from qvla_offline.compare.starts import FLOAT
    from qvla_offline.error.comparison import require_distinct, require_held_out
    from qvla_offline.error.held_out import read_held_out
    from qvla_offline.error.report import UNIT
    from qvla_offline.fingerprint import checkpoint_sha256
    from qvla_offline.sensitivity.inputs import suit_threads
    from qvla_ros.evaluation.versions import versions

    require_distinct([FLOAT, *(subject.name for subject in subjects)])
    robot = robot_of(args)
    checkpoint = made_by.open()
    suit_threads(checkpoint.model)
    held_out = read_held_out(args.observations, checkpoint, args.max_samples, robot)
    require_held_out(held_out, subjects, made_by, args.calibration, robot)
    settings = {
        "command": shlex.join(["qvla", *sys.argv[1:]]),
        "versions": versions(),
        "checkpoint": str(args.pretrained_checkpoint),
        "checkpoint_sha256": checkpoint_sha256(args.pretrained_checkpoint),
        "observations": str(args.observations),
        "unit": UNIT,
    }
    policies = measured_policies(subjects, made_by, held_out, args.out)
    return Comparison(policies, settings, args.seed)


def _driven(
    args: argparse.Namespace,
    made_by: Subjects,
    subjects: Sequence[Subject],
    starts: Sequence[Start],
    comparison: Comparison,
) -> Comparison:
    """Runs the episodes that --out does not hold yet, and counts all that it holds."""
    from qvla_offline.compare import document
    from qvla_offline.compare.bundles import Bundles
    from qvla_offline.compare.closed_loop import ClosedLoop, run_missing
    from qvla_offline.compare.starts import FLOAT
    from qvla_offline.workers.opening import open_workers
    from qvla_ros.simulation.episode_log import EpisodeLog

    bundles = Bundles(args.out / "bundles", made_by, robot_of(args))
    policies = {FLOAT: bundles.of_float(), **{s.name: bundles.of(s) for s in subjects}}
    comparison = comparison.with_bundles(policies)
    document.write(comparison, args.out)  # what --print_only needs while the episodes run
    plan = ClosedLoop(policies, starts, args.backend, args.seed)
    with open_workers(args.workers, args.ray) as workers:
        run_missing(plan, EpisodeLog(args.out), workers, partial(print, flush=True))
    return document.with_episodes(comparison, args.out)
