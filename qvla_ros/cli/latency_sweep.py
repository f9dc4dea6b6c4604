"""`qvla latency_sweep`: measures success in LIBERO at each latency, in simulated time."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.cli.episode_options import (
    add_bundle_option,
    add_episode_options,
    add_node_options,
    parse_bundles,
    plan_of,
)
from qvla_ros.cli.real_time_options import add_real_time_options, real_time_of
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.latency import latency_points, print_points, read_episodes, write_points
from qvla_ros.evaluation.versions import versions

HELP = (
    "success in LIBERO against latency: the arm goes on while the policy thinks "
    "(resumes; CSV and plot)"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_option(parser)
    parser.add_argument("--latencies_s", default="0,0.1,0.2,0.4,0.8", help="seconds, or measured")
    parser.add_argument(
        "--handovers",
        default="skip,restart,wait",
        help="how a late chunk takes over: skip what has passed, restart at its first "
        "action, or wait for it",
    )
    add_real_time_options(parser, observation_period_s=0.2)
    add_episode_options(parser, 2, "episodes a task, latency and handover")
    add_node_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/latency_sweep"),
        help="interrupted, it goes on from here",
    )
    parser.add_argument(
        "--print_only", action="store_true", help="print and draw what --out holds so far"
    )


def run(args: argparse.Namespace) -> int:
    """Runs what is missing; prints the table, writes latency.csv and latency.png."""
    if not args.print_only:
        run_missing(args)
    show(args.out)
    return 0


def run_missing(args: argparse.Namespace) -> None:
    """Every episode of the options that --out does not hold yet."""
    from qvla_ros.evaluation import runner
    from qvla_ros.evaluation.display import EpisodeDisplay

    bundles = parse_bundles(args.bundle)
    real_time = real_time_of(args, args.latencies_s, args.handovers)
    plan = plan_of(args, bundles, video=False, real_time=real_time)
    loaded = {name: load_bundle(directory) for name, directory in plan.bundles.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(args.out / "sweep.json") as temporary:
        temporary.write_text(
            json.dumps(description(args, loaded), indent=1) + "\n", encoding="utf-8"
        )
    with EpisodeDisplay(plan.episode_count) as display:
        runner.run(plan, loaded, args.out, display)


def description(args: argparse.Namespace, bundles: Mapping[str, Bundle]) -> dict[str, Any]:
    """Identifies the episodes of this sweep in the log, and what they were measured with."""
    real_time = real_time_of(args, args.latencies_s, args.handovers)
    return {
        "conditions": {
            "blend_steps": real_time.blend_steps,
            "observation_period_s": real_time.observation_period_s,
            "faults": list(real_time.faults),
        },
        "bundle_ids": {name: bundle.bundle_id for name, bundle in bundles.items()},
        "chunk_s": max(
            b.actions.chunk_length * b.actions.control_period_s for b in bundles.values()
        ),
        "command": shlex.join(["qvla", *sys.argv[1:]]),
        "versions": versions(),
    }


def show(out: Path) -> None:
    """Prints the table of what `out` holds, and writes latency.csv and latency.png there."""
    from qvla_ros.evaluation.plots import success_versus_latency

    if not (out / "sweep.json").is_file():
        raise QvlaError(
            str(out),
            "no sweep.json",
            "a sweep that was begun",
            "run it first, without --print_only",
        )
    sweep = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    points = latency_points(
        read_episodes(out / "episodes.jsonl", sweep["conditions"], sweep["bundle_ids"])
    )
    print_points(points)
    write_points(out / "latency.csv", points)
    with atomic_file(out / "latency.png") as temporary:
        success_versus_latency(points, sweep["chunk_s"]).savefig(temporary, format="png", dpi=150)
    print(f"Plot: {out / 'latency.png'}\nNumbers: {out / 'latency.csv'}")
