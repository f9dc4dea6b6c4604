"""`qvla error`: measures how far a quantized policy's actions are from the float policy's."""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_offline.cli.subject_options import (
    add_subject_arguments,
    maker_of,
    robot_of,
    subjects_of,
)

HELP = (
    "measure the action error of gates, bundles and fake-quantized checkpoints on "
    "observations that no step has read"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject_arguments(parser)
    parser.add_argument(
        "--by_dimension", action="store_true", help="print the error of each action dimension too"
    )
    parser.add_argument("--out_json", type=Path, help="write the result there as well")


def run(args: argparse.Namespace) -> int:
    from qvla_offline.error.comparison import compare, require_held_out
    from qvla_offline.error.held_out import read_held_out
    from qvla_offline.error.report import table, write_report
    from qvla_offline.sensitivity.inputs import suit_threads

    robot = robot_of(args)
    made_by = maker_of(args)
    subjects = subjects_of(args, made_by)
    checkpoint = made_by.open()
    suit_threads(checkpoint.model)
    held_out = read_held_out(args.observations, checkpoint, args.max_samples, robot)
    require_held_out(held_out, subjects, made_by, args.calibration, robot)
    measured = compare(subjects, made_by, held_out)
    print(table(measured, robot.actions.names if args.by_dimension else ()))
    if args.out_json:
        write_report(args.out_json, measured, args.pretrained_checkpoint, held_out)
        print(f"wrote {args.out_json}")
    return 0
