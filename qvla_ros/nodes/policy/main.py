"""The policy node: reads images, joint states and an instruction, sends chunks and commands.

While something is missing, stale or wrong, no chunk is published, the arm is stopped if it was
moving, and `~/status` says why. Run it with `python -m qvla_ros.nodes.policy --ros-args -p
bundle:=DIR -r __ns:=/arm`.
"""

from __future__ import annotations

import gc
import sys

from rclpy.lifecycle import TransitionCallbackReturn

from qvla_ros.errors import QvlaError
from qvla_ros.exit_codes import LOST
from qvla_ros.nodes.policy.node import PolicyNode
from qvla_ros.nodes.process import (
    Interrupted,
    destroy,
    end_for_sure,
    ignore_signals,
    make_executor,
    run_node,
    spin,
)

# How long a thread that computes in Python may keep the control thread from waking: CPython's own 5
# ms would be half a period at 100 Hz.
SWITCH_INTERVAL_S = 0.0005
HANG_S = 5.0  # until the process ends, whatever still holds it


USAGE = """\
usage: python -m qvla_ros.nodes.policy --ros-args -p bundle:=DIR [-p NAME:=VALUE ...]

The policy node: reads images, joint states and an instruction, and sends action
chunks and commands to the robot.

options:
  --ros-args -p NAME:=VALUE         set a parameter; `qvla parameters` lists them
  --ros-args --params-file FILE     read parameters from a YAML file
  --ros-args -r __ns:=/arm          run it in a namespace
  -h, --help                        show this help message and exit"""


def serve() -> int:
    """Runs the node until a signal arrives.

    Exit code 0; 1 when it could not start for another reason than bad input; LOST when an inference
    hangs that has to end. No transition leads out of that: what watches over the process, such as
    systemd or launch with `respawn`, can start another one.
    """
    node = PolicyNode()
    executor = None
    try:
        executor = make_executor(node.parameters.model.executor)
        if node.parameters.model.autostart:
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    if isinstance(node.startup_error, QvlaError):
                        raise node.startup_error
                    return 1
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        # what the start left behind lives until the end: no collection needs to visit it again
        gc.freeze()
        spin(node, executor, lambda: node.hangs)
        node.get_logger().fatal(
            "the inference does not end, so the process does; fix: start the node again, raise "
            "inference_timeout_s if the engine is slow"
        )
        end_for_sure(LOST, HANG_S)
        node.say_goodbye()
        return LOST
    except Interrupted as interruption:
        ignore_signals()
        node.get_logger().info(f"{interruption}: stopping")
        node.say_goodbye()
        return 0
    except Exception:  # whatever it is: the arm is stopped before the process ends of it
        ignore_signals()
        node.say_goodbye()
        raise
    finally:
        destroy(node, executor)
        # else what belongs to the middleware would stay, and its shared memory with it
        gc.unfreeze()


def main(args: list[str] | None = None) -> int:
    """Exit status 0, 1 if it could not start, 2 for bad input, 3 if an inference hangs, 128 + n for
    a signal n.
    """
    return run_node(serve, args, USAGE)
