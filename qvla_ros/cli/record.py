"""`qvla record`: what running policy nodes see and do, in an MCAP bag that `qvla replay` and `ros2
bag` read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_ros.errors import QvlaError

HELP = (
    "record what running policy nodes subscribe to and publish in an MCAP bag, until "
    "Ctrl-C. NAME.unfinished is a "
    "recording that was cut off. With a ROS install, `ros2 bag record --storage mcap "
    "TOPICS` does as well"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, help="directory of the bag; must not exist"
    )
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        help="full name of a policy node, repeatable (default: all that run)",
    )
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="record these too")
    parser.add_argument("--duration_s", type=float, help="stop after so long (default: at Ctrl-C)")


def run(args: argparse.Namespace) -> int:
    try:
        from qvla_ros.nodes.tools.recorder import RecorderSettings, record
    except ModuleNotFoundError as error:
        fix = "source a ROS install, or in a checkout: make setup"
        raise QvlaError("qvla record", f"no Python module {error.name!r}", "ROS 2", fix) from error
    return record(RecorderSettings(args.out, args.policy, args.topics, args.duration_s))
