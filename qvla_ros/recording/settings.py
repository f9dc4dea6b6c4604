"""The settings of the recorder and their command line options. Imports no ROS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RecorderSettings:
    """The settings of a recording: what, where and for how long.

    out: the bag. policies: full names of policy nodes; none: all that run. topics: recorded too.
    duration_s: when to stop; None: when interrupted.
    """

    out: Path
    policies: Sequence[str] = ()
    topics: Sequence[str] = ()
    duration_s: float | None = None


def add_recorder_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recorder's options to a parser."""
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


def recorder_settings(args: argparse.Namespace) -> RecorderSettings:
    """The settings that the parsed options ask for."""
    return RecorderSettings(args.out, args.policy, args.topics, args.duration_s)
