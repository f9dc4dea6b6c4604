"""`qvla reference observations`: records observations of the policy at work in LIBERO."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = (
    "record observations of roll-outs of the policy in LIBERO, from sampled placements: held out "
    "for `qvla error`, or for calibration (resumes)"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained_checkpoint",
        type=Path,
        metavar="DIR",
        default=Path("reference_policy"),
        help="checkpoint of the policy that is observed",
    )
    parser.add_argument(
        "--set",
        default="held_out",
        help="held_out, calibration_pool or second_held_out; no two share a placement",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reference_policy"), help="folder for SET.jsonl and SET/"
    )


def run(args: argparse.Namespace) -> int:
    os.environ.setdefault("LP_NUM_THREADS", "1")
    from qvla_reference.observation_sets import SETS, record_set
    from qvla_reference.rollout import load_learner
    from qvla_ros.errors import QvlaError
    from qvla_ros.simulation.held_task import held_task

    if args.set not in SETS:
        raise QvlaError("set", args.set, f"one of {', '.join(SETS)}", "choose one with --set")
    learner = load_learner(args.pretrained_checkpoint)
    path = record_set(SETS[args.set], args.out, learner.checkpoint.prompt, learner, held_task)
    print(f"wrote {path}")
    return 0
