"""`qvla record`: records what running policy nodes see and do, in an MCAP bag.

`qvla replay` and `ros2 bag` read it.
"""

from __future__ import annotations

import argparse

from qvla_ros.errors import QvlaError
from qvla_ros.recording.settings import add_recorder_arguments, recorder_settings

HELP = (
    "record what running policy nodes subscribe to and publish in an MCAP bag, until "
    "Ctrl-C. NAME.unfinished is a "
    "recording that was cut off. With a ROS install, `ros2 bag record --storage mcap "
    "TOPICS` does as well"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recorder_arguments(parser)


def run(args: argparse.Namespace) -> int:
    try:
        from qvla_ros.nodes.tools.recorder import record
    except ModuleNotFoundError as error:
        fix = "source a ROS install, or in a checkout: make setup"
        raise QvlaError("qvla record", f"no Python module {error.name!r}", "ROS 2", fix) from error
    return record(recorder_settings(args))
