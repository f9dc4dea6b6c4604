"""`qvla reference export_demonstrations`: writes recordings as a LeRobot dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write recorded demonstrations as a LeRobot dataset (v3.0), with images embedded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--demonstrations",
        type=Path,
        default=Path("data/demonstrations"),
        help="folder of recordings",
    )
    parser.add_argument(
        "--task_suite_name", default="libero_object", help="suite to export: a folder in there"
    )
    parser.add_argument(
        "--driver",
        choices=("expert", "learner"),
        default="expert",
        help="expert: recordings of `qvla reference demonstrations`; learner: of `qvla reference "
        "dagger`, which have another frame rate (default: expert)",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="directory of the dataset; an earlier one is replaced",
    )


def run(args: argparse.Namespace) -> int:
    from qvla_reference.lerobot_export import export_demonstrations

    done = export_demonstrations(args.demonstrations, args.task_suite_name, args.out, args.driver)
    print(
        f"wrote {args.out}: {done.recordings} recordings as {done.episodes} episodes, "
        f"{done.frames} frames at "
        f"{done.fps:.4g} a second; its README.md describes it"
    )
    return 0
