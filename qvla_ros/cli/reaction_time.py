"""`qvla reaction_time`: how late an arm carries out velocities, estimated from a bag."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "estimate reaction_time_s from a bag of velocity commands and poses"
GOOD_FIT = 0.1  # of the motion unexplained: more is no estimate to rely on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="directory, .mcap or .db3")
    parser.add_argument(
        "--command_topic", help="TwistStamped (default: the only topic of that type)"
    )
    parser.add_argument("--pose_topic", help="PoseStamped (default: the only topic of that type)")


def run(args: argparse.Namespace) -> int:
    from qvla_ros.recording.bag import open_bag
    from qvla_ros.recording.reaction_time import estimate_reaction, read_motion

    with open_bag(args.bag) as bag:
        sent, measured = read_motion(bag, args.command_topic, args.pose_topic)
    found = estimate_reaction(sent, measured)
    print(
        f"reaction_time_s: {found.reaction_time_s:.3f}   (the arm makes {found.gain:.2f} of the "
        f"way that it is sent; {found.unexplained:.1%} of its motion is something else)"
    )
    if found.unexplained <= GOOD_FIT:
        return 0
    print("No estimate to rely on: record free motion to and fro, along every axis, at some speed.")
    return 1
