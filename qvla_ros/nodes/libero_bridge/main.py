"""Runs the LIBERO bridge as a process.

`python -m qvla_ros.nodes.libero_bridge --ros-args -p policies:='[float]' -p task_ids:='[0]'`.
"""

from __future__ import annotations

import rclpy

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.libero_bridge.bridge import LiberoBridge
from qvla_ros.nodes.libero_bridge.events import emit
from qvla_ros.nodes.process import Interrupted, destroy, make_executor, run_node

USAGE = """\
usage: python -m qvla_ros.nodes.libero_bridge --ros-args -p policies:='[float]' \\
           -p task_ids:='[0]' [-p NAME:=VALUE ...]

The LIBERO bridge: the simulated robot. It runs episodes with the policy nodes
/<policy>/policy and prints an event a line. `qvla eval` starts it with its nodes.

options:
  --ros-args -p NAME:=VALUE         set a parameter; `qvla parameters` lists them
  --ros-args --params-file FILE     read parameters from a YAML file
  -h, --help                        show this help message and exit"""


def serve() -> int:
    """Runs all episodes; returns 0, or 3 for a lost policy. Failures are printed as an event."""
    node = rclpy.create_node("libero_bridge")
    executor = make_executor()
    try:
        return LiberoBridge(node, executor).run()
    except QvlaError as error:
        emit("error", reason=str(error))
        raise
    except Interrupted:
        emit("error", reason="interrupted")
        raise
    finally:
        destroy(node, executor)


def main(args: list[str] | None = None) -> int:
    """Exit status 0, 2 for bad parameters, 3 for a lost policy, 130 for Ctrl-C."""
    return run_node(serve, args, USAGE)
