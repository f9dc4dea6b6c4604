"""The faults of a drill: everything that can happen to a policy node that commands an arm.

They are grouped by what the node commands. Each group starts a node of its own and yields an
outcome a fault; `more` are parameters of that node beside those that the group needs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rclpy.context import Context

from qvla_ros.bundle import Manifest, load_bundle, save_bundle
from qvla_ros.evaluation.processes import start, stopped_at_the_end
from qvla_ros.testing.fake_robot import INSTRUCTION
from qvla_ros.testing.fault_drill import (
    LIMIT_S,
    NAMESPACE,
    Drill,
    DrilledFault,
    DrillOutcome,
    drill,
    wait_for,
)


def quirks(**values: Any) -> Callable[[Drill], None]:
    """Changes what is wrong with the robot, see fake_robot.Quirks."""
    return lambda d: d.set_quirks(**values)


def failing_inference(text: str) -> Callable[[Drill], None]:
    """Makes the next inference fail, see FakeEngine."""
    return lambda d: d.fail_next_inference(text)


_AGE = f"max_image_age_s = {LIMIT_S:g}"
_INFERENCE = f"inference_timeout_s = {LIMIT_S:g}"
_DEADMAN = f"deadman_timeout_s = {LIMIT_S:g}"
_JUMP = f"max_clock_jump_s = {LIMIT_S:g}"
_HELD = quirks(deadman=True)

CAMERA_SILENT = DrilledFault(
    "camera silent",
    _AGE,
    "stale_input",
    quirks(cameras_silent=True),
    quirks(cameras_silent=False),
)
WRONG_SIZE = DrilledFault(
    "image of the wrong size",
    "arrival",
    "bad_input",
    quirks(wrong_size=True),
    quirks(wrong_size=False),
)
FROZEN = DrilledFault(
    "frozen pictures",
    "10 pictures and 5 cm",
    "bad_input",
    quirks(frozen=True),
    quirks(frozen=False),
)
NAN_JOINTS = DrilledFault(
    "NaN in joint_states",
    "arrival",
    "bad_input",
    quirks(nan_joints=True),
    quirks(nan_joints=False),
)
SLIP = DrilledFault(
    "measured 0.5 m or rad away",
    "arrival",
    "bad_measurement",
    quirks(slip=0.5),
    quirks(slip=0.0),
)
AHEAD = DrilledFault(
    "stamps 0.5 s ahead",
    _AGE,
    "stale_input",
    quirks(ahead_s=0.5),
    quirks(ahead_s=0.0),
)
NAN_ENGINE = DrilledFault(
    "NaN from the engine",
    "end of run",
    "inference_error",
    failing_inference("nan"),
    Drill.reactivate,
)
ENGINE_RAISES = DrilledFault(
    "engine raises",
    "end of run",
    "inference_error",
    failing_inference("raise"),
    Drill.reactivate,
)
LATE_INFERENCE = DrilledFault(
    "late inference",
    _INFERENCE,
    "late_inference",
    failing_inference(f"{1.5 * LIMIT_S}"),
    Drill.reactivate,
)
CANCELLED = DrilledFault(
    "~/cancel",
    "request",
    "cancelled",
    Drill.cancel,
    lambda d: d.robot.publish_instruction(INSTRUCTION),
)
DISARMED = DrilledFault("~/arm false", "request", "disarmed", Drill.disarm)
DEACTIVATED = DrilledFault("deactivate", "request", "deactivated", Drill.deactivate, Drill.activate)
INTERRUPTED = DrilledFault("SIGINT", "signal", "shutdown", lambda d: d.send(signal.SIGINT))
DEADMAN_RELEASED = DrilledFault(
    "deadman released", "arrival", "deadman_lost", quirks(deadman=False), _HELD
)
DEADMAN_SILENT = DrilledFault(
    "deadman silent", _DEADMAN, "deadman_lost", quirks(deadman=None), _HELD
)
CLOCK_AHEAD = DrilledFault("clock jumps 10 s ahead", _JUMP, "clock_jump", quirks(clock_jump_s=10.0))
CLOCK_BACK = DrilledFault(
    "clock jumps 10 s back", "at once", "clock_jump", quirks(clock_jump_s=0.0)
)

STALLED = DrilledFault(
    "process stopped for 1.5 s (SIGSTOP)",
    f"max_stall_s = {LIMIT_S:g}",
    "stalled",
    Drill.stall,
    Drill.reactivate,  # an inference that was under way took too long, too
)

NOT_READY = DrilledFault(
    "robot not ready", "arrival", "robot_not_ready", quirks(ready=False), quirks(ready=True)
)
STUCK = DrilledFault(
    "arm stands still",
    "following_window_s = 0.5",
    "not_following",
    quirks(stuck=True),
    quirks(stuck=False),
)

OF_INPUTS = (CAMERA_SILENT, WRONG_SIZE, FROZEN, NAN_JOINTS, SLIP, AHEAD)
OF_THE_ENGINE = (NAN_ENGINE, ENGINE_RAISES, LATE_INFERENCE)
OF_REQUESTS = (CANCELLED, DISARMED, DEACTIVATED)
OF_THE_DEADMAN_AND_THE_CLOCK = (DEADMAN_RELEASED, DEADMAN_SILENT, CLOCK_AHEAD, CLOCK_BACK)
OF_THE_ROBOT = (NOT_READY, STUCK)
ONE_OF_EACH_STOP_PATH = (CAMERA_SILENT, NAN_JOINTS, SLIP, ENGINE_RAISES, DISARMED)


def pose_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[DrillOutcome]:
    """All that can happen to a node that commands poses; the last fault ends it."""
    # The robot that is killed publishes beside the drill's own.
    parameters: dict[str, Any] = {"output": "pose", "sole_publishers": False, **more}
    with drill(context, bundle_dir, environment, directory, **parameters) as d:
        yield from map(d.provoke, (*OF_INPUTS, *OF_THE_ENGINE, *OF_REQUESTS, STALLED))
        yield _killed_robot(d, bundle_dir, environment, directory)
        yield d.provoke(INTERRUPTED)


def twist_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[DrillOutcome]:
    """Deadman, robot and clock, on a node that commands twists in simulated time.

    The last fault kills it.
    """
    parameters: dict[str, Any] = {
        "output": "twist",
        "use_sim_time": True,
        "deadman": True,
        "ready_topic": "ready",
        **more,
    }
    with drill(context, bundle_dir, environment, directory, **parameters) as d:
        _HELD(d)
        yield from map(d.provoke, (*OF_THE_ROBOT, *OF_THE_DEADMAN_AND_THE_CLOCK))
        yield d.kill()


def joint_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[DrillOutcome]:
    """One fault of each kind of stop path, on a node that sends joint positions.

    more: parameters, such as another `output` than joint_trajectory. The last fault ends it.
    """
    in_joints = bundle_in_joint_space(bundle_dir, directory / "joint_bundle")
    parameters: dict[str, Any] = {
        "output": "joint_trajectory",
        "joints": list(load_bundle(in_joints, verify_hashes=False).actions.names[:-1]),
        "linear_scale": 1.0,
        "angular_scale": 1.0,
        **more,
    }
    with drill(context, in_joints, environment, directory, **parameters) as d:
        yield from map(d.provoke, (*ONE_OF_EACH_STOP_PATH, INTERRUPTED))


def bundle_in_joint_space(bundle_dir: Path, directory: Path) -> Path:
    """A copy of the bundle whose actions are joint positions and, last, the gripper; made once."""
    if not directory.exists():
        bundle = load_bundle(bundle_dir)
        moving = len(bundle.actions.names) - 1
        actions = replace(
            bundle.actions,
            kind="joint_position",
            names=(*(f"joint{number + 1}" for number in range(moving)), "gripper"),
            units=("rad",) * moving + bundle.actions.units[-1:],
        )
        manifest = Manifest(
            **{field.name: getattr(bundle, field.name) for field in fields(Manifest)}
        )
        files = {name: bundle_dir / name for name in bundle.files}
        save_bundle(directory, replace(manifest, actions=actions), files)
    return directory


def _killed_robot(
    d: Drill, bundle_dir: Path, environment: Mapping[str, str], directory: Path
) -> DrillOutcome:
    """SIGKILL to the process that streams; the drill's own robot only listens meanwhile."""
    arguments = ["-m", "qvla_ros.testing.fake_robot", "--bundle", str(bundle_dir)]
    streamer = start("fake_robot", [*arguments, "--namespace", NAMESPACE], environment, directory)
    silent = quirks(all_silent=True)

    def die(d: Drill) -> None:
        streamer.process.kill()
        silent(d)

    with stopped_at_the_end([streamer]):
        wait_for(
            lambda: d.robot.node.count_publishers(f"/{NAMESPACE}/joint_states") > 1,
            "a second robot",
            d.describe,
        )
        silent(d)
        killed = DrilledFault(
            "robot killed (SIGKILL)", _AGE, "stale_input", die, quirks(all_silent=False)
        )
        return d.provoke(killed)
