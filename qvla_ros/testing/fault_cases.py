"""What can happen to a policy node that commands an arm, one fault after the other, by what it
commands.

more: parameters of the node beside those that a case needs.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.context import Context

from qvla_ros.bundle import Manifest, load_bundle, save_bundle
from qvla_ros.evaluation.processes import start, stopped_at_the_end
from qvla_ros.testing.fake_robot import INSTRUCTION
from qvla_ros.testing.fault_drill import LIMIT_S, NAMESPACE, Drill, Outcome, drill, wait_for

_AGE = f"max_image_age_s = {LIMIT_S:g}"


def nothing() -> None:
    """To be mended by."""


def pose_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[Outcome]:
    """All that can happen to a node that commands poses; the last fault ends it."""
    inference = f"inference_timeout_s = {LIMIT_S:g}"
    with drill(context, bundle_dir, environment, directory, output="pose", **more) as d:
        on = d.quirk
        off = d.quirk
        yield d.provoke(
            "camera silent", _AGE, "stale_input", on(cameras_silent=True), off(cameras_silent=False)
        )
        yield d.provoke(
            "image of the wrong size",
            "arrival",
            "bad_input",
            on(wrong_size=True),
            off(wrong_size=False),
        )
        yield d.provoke(
            "NaN in joint_states",
            "arrival",
            "bad_input",
            on(nan_joints=True),
            off(nan_joints=False),
        )
        yield d.provoke(
            "NaN from the engine",
            "end of run",
            "inference_error",
            d.engine_fault("nan"),
            d.reactivate,
        )
        yield d.provoke(
            "engine raises", "end of run", "inference_error", d.engine_fault("raise"), d.reactivate
        )
        late = d.engine_fault(f"{1.5 * LIMIT_S}")
        yield d.provoke("late inference", inference, "late_inference", late, d.reactivate)
        yield d.provoke(
            "~/cancel", "request", "cancelled", d.cancel, partial(d.robot.tell, INSTRUCTION)
        )
        yield d.provoke("~/arm false", "request", "disarmed", d.disarm, nothing)
        yield d.provoke("deactivate", "request", "deactivated", d.deactivate, d.activate)
        yield _killed_robot(d, bundle_dir, environment, directory)
        yield d.provoke("SIGINT", "signal", "shutdown", d.signal(signal.SIGINT), nothing)


def twist_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[Outcome]:
    """The deadman and the clock, on a node that commands twists in simulated time; the last fault
    kills it.
    """
    deadman = f"deadman_timeout_s = {LIMIT_S:g}"
    jump = f"max_clock_jump_s = {LIMIT_S:g}"
    parameters: dict[str, Any] = {"output": "twist", "use_sim_time": True, "deadman": True, **more}
    with drill(context, bundle_dir, environment, directory, **parameters) as d:
        held = d.quirk(deadman=True)
        held()
        yield d.provoke("deadman released", "arrival", "deadman_lost", d.quirk(deadman=False), held)
        yield d.provoke("deadman silent", deadman, "deadman_lost", d.quirk(deadman=None), held)
        yield d.provoke(
            "clock jumps 10 s ahead", jump, "clock_jump", d.quirk(clock_jump_s=10.0), nothing
        )
        yield d.provoke(
            "clock jumps 10 s back", "at once", "clock_jump", d.quirk(clock_jump_s=0.0), nothing
        )
        yield d.kill()


def joint_faults(
    context: Context, bundle_dir: Path, environment: Mapping[str, str], directory: Path, **more: Any
) -> Iterator[Outcome]:
    """One fault of each kind of stop path, on a node that sends joint trajectories; the last one
    ends it.
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
        on = d.quirk
        off = d.quirk
        yield d.provoke(
            "camera silent", _AGE, "stale_input", on(cameras_silent=True), off(cameras_silent=False)
        )
        yield d.provoke(
            "NaN in joint_states",
            "arrival",
            "bad_input",
            on(nan_joints=True),
            off(nan_joints=False),
        )
        yield d.provoke(
            "engine raises", "end of run", "inference_error", d.engine_fault("raise"), d.reactivate
        )
        yield d.provoke("~/arm false", "request", "disarmed", d.disarm, nothing)
        yield d.provoke("SIGINT", "signal", "shutdown", d.signal(signal.SIGINT), nothing)


def bundle_in_joint_space(bundle_dir: Path, directory: Path) -> Path:
    """The bundle as if its actions were joint positions and, last, the gripper; made once."""
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
) -> Outcome:
    """SIGKILL to the process that streams; the drill's own robot only listens meanwhile."""
    arguments = [
        "-m",
        "qvla_ros.testing.fake_robot",
        "--bundle",
        str(bundle_dir),
        "--namespace",
        NAMESPACE,
    ]
    streamer = start("fake_robot", arguments, environment, directory)
    silent = d.quirk(all_silent=True)

    def die() -> None:
        streamer.process.kill()
        silent()

    with stopped_at_the_end([streamer]):
        wait_for(
            lambda: d.robot.node.count_publishers(f"/{NAMESPACE}/joint_states") > 1,
            "a second robot",
            d.describe,
        )
        silent()
        return d.provoke(
            "robot killed (SIGKILL)", _AGE, "stale_input", die, d.quirk(all_silent=False)
        )
