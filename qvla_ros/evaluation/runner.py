"""Runs an evaluation: one policy process a bundle, and the LIBERO bridge, whose events it reads."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.episodes import EpisodeRecord, parse_episode
from qvla_ros.evaluation.processes import (
    Child,
    private_ros_environment,
    start,
    stop,
    stopped_at_the_end,
)
from qvla_ros.exit_codes import BAD_INPUT, LOST
from qvla_ros.simulation.real_time import RealTime
from qvla_ros.simulation.specification import CONTROL_PERIOD_S, MAX_STEPS_OF_FAMILY

# A bridge that loses a policy reports that itself, with the episode; it has this long to do so.
BRIDGE_LAST_WORD_S = 20.0
BRIDGE_END_S = 3.0
POLL_S = 0.2

Event = Mapping[str, Any]


class ProcessEnded(QvlaError):
    """A node ended before its work was done.

    exit_status: 2 when the node refused its input, 3 when it was lost.
    """

    def __init__(self, child: Child, reason: str) -> None:
        super().__init__(
            f"process {child.name}", reason, "it runs until the last episode", f"see {child.log}"
        )
        self.exit_status = BAD_INPUT if child.process.poll() == BAD_INPUT else LOST


@dataclass(frozen=True)
class EvaluationPlan:
    """A plan of an evaluation: what to evaluate, and how.

    bundles: name (a ROS name, it becomes the namespace) -> bundle directory. Episodes run from the
    official initial states init_state_offset .. init_state_offset + num_trials_per_task - 1 of each
    task, for every policy in turn. video: whether the first episode of each policy is recorded. The
    suite "fake" has no physics: it tests the wiring. real_time: the conditions of each start; None:
    once, in lock-step.
    """

    bundles: Mapping[str, Path]
    task_suite_name: str
    task_ids: tuple[int, ...]
    num_trials_per_task: int
    init_state_offset: int
    backend: str
    seed: int
    video: bool
    real_time: RealTime | None = None

    def __post_init__(self) -> None:
        for name in self.bundles:
            if not (name.isascii() and name.isidentifier() and name[0] != "_"):
                fix = "write --bundle NAME=DIR with letters, digits and _"
                raise QvlaError(
                    "bundle name", name, "a name that can be a ROS namespace, e.g. quantized", fix
                )
        if not self.bundles:
            raise QvlaError("bundle", "none", "at least one bundle", "add --bundle NAME=DIR")
        if self.num_trials_per_task < 1:
            raise QvlaError(
                "num_trials_per_task", self.num_trials_per_task, "1 or more", "ask for more trials"
            )

    @property
    def episode_count(self) -> int:
        conditions = 1 if self.real_time is None else len(self.real_time.conditions())
        return len(self.bundles) * len(self.task_ids) * self.num_trials_per_task * conditions


def camera_size(bundles: Iterable[Bundle]) -> int:
    """Height and width of the images of all cameras of all bundles; QvlaError if they differ."""
    sizes = {
        size
        for bundle in bundles
        for camera in bundle.cameras
        for size in (camera.height, camera.width)
    }
    if len(sizes) != 1:
        fix = "evaluate bundles for other cameras one at a time"
        raise QvlaError(
            "camera sizes of the bundles", sorted(sizes), "one size, square, for all", fix
        )
    return sizes.pop()


def max_steps(bundles: Iterable[Bundle], suite: str) -> int:
    """Step limit of an episode, 0 for the suite's own.

    A family may have longer episodes; policies that are compared with it get as long.
    """
    limits = (MAX_STEPS_OF_FAMILY.get(bundle.family, {}) for bundle in bundles)
    return max((of_family.get(suite, 0) for of_family in limits), default=0)


def run(
    plan: EvaluationPlan,
    bundles: Mapping[str, Bundle],
    out_dir: Path,
    on_event: Callable[[Event], None],
) -> list[EpisodeRecord]:
    """Starts the nodes, passes every event of the bridge to `on_event`, and returns the episodes.

    bundles: the plan's, loaded; they hold the size of the images and the length of an episode. Logs
    go to out_dir/log, finished episodes to out_dir/episodes.jsonl: a second run goes on after the
    last one. QvlaError when a policy or the bridge ends early, with the reason that it gave. The
    children have ended when this returns or raises.
    """
    # First, since it refuses bundles that do not go together.
    bridge_words = bridge_arguments(plan, bundles, out_dir)
    log_dir = out_dir / "log"
    log_dir.mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    with private_ros_environment(log_dir) as environment, stopped_at_the_end(children):
        for name, directory in plan.bundles.items():
            children.append(
                start(
                    f"policy_{name}", policy_arguments(plan, name, directory), environment, log_dir
                )
            )
        bridge = start("bridge", bridge_words, environment, log_dir, pipe_stdout=True)
        policies = children.copy()
        children.append(bridge)
        episodes = []
        for event in _events(bridge, policies):
            on_event(event)
            if event["event"] == "episode":
                episodes.append(parse_episode(event))
        stop(policies)
    if len(episodes) != plan.episode_count:
        raise ProcessEnded(bridge, f"ended after {len(episodes)} of {plan.episode_count} episodes")
    return episodes


def policy_arguments(plan: EvaluationPlan, name: str, directory: Path) -> list[str]:
    """The Python arguments that run one policy node in the namespace /name."""
    parameters: dict[str, object] = {
        "bundle": str(directory.resolve()),
        "backend": plan.backend,
        "autostart": True,
    }
    if plan.real_time is not None:
        # Everything sensed at one moment has one stamp; the moment before is a control step away.
        parameters |= {"use_sim_time": True, "max_stamp_spread_s": 0.5 * CONTROL_PERIOD_S}
    return ["-m", "qvla_ros.nodes.policy", *ros_arguments(parameters), "--remap", f"__ns:=/{name}"]


def bridge_arguments(
    plan: EvaluationPlan, bundles: Mapping[str, Bundle], out_dir: Path
) -> list[str]:
    """The Python arguments that run the LIBERO bridge for all policies of the plan."""
    parameters = {
        "policies": list(plan.bundles),
        "task_suite_name": plan.task_suite_name,
        "task_ids": list(plan.task_ids),
        "num_trials_per_task": plan.num_trials_per_task,
        "init_state_offset": plan.init_state_offset,
        "seed": plan.seed,
        "simulator": "fake" if plan.task_suite_name == "fake" else "libero",
        "camera_size": camera_size(bundles.values()),
        "max_steps": max_steps(bundles.values(), plan.task_suite_name),
        "output_dir": str(out_dir.resolve()),
        "video_dir": str((out_dir / "video").resolve()) if plan.video else "",
        **({} if plan.real_time is None else plan.real_time.parameters()),
    }
    return ["-m", "qvla_ros.nodes.libero_bridge", *ros_arguments(parameters)]


def ros_arguments(parameters: Mapping[str, object]) -> list[str]:
    """`--ros-args -p name:=value ...`; values as YAML, which JSON is."""
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={json.dumps(value)}"]
    return arguments


def _events(bridge: Child, policies: list[Child]) -> Iterator[Event]:
    """The bridge's events until it ends; ProcessEnded once it has reported a failure, or died."""
    assert bridge.process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(bridge.process.stdout, lines), daemon=True).start()
    all_well_s = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            dead = _first_dead(policies)
            if dead is None:
                all_well_s = time.monotonic()
            elif time.monotonic() > all_well_s + BRIDGE_LAST_WORD_S:
                raise _died(dead) from None
            continue
        if line is None:
            break
        event = _parse(line)
        if event is None:
            continue
        if event["event"] == "error":
            raise _failure(bridge, policies, str(event.get("reason", "no reason given")))
        yield event
    if bridge.process.wait() != 0:
        raise _died(bridge)


def _read_lines(stream: TextIO, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _parse(line: str) -> Event | None:
    """The event in a line; None for another line (a library that prints), which goes to stderr."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    print(line.rstrip(), file=sys.stderr)
    return None


def _failure(bridge: Child, policies: list[Child], reason: str) -> ProcessEnded:
    """The error after the bridge reported `reason`; it names a dead policy as the cause."""
    with suppress(subprocess.TimeoutExpired):
        # For its exit status; by then a policy that went down has ended too.
        bridge.process.wait(BRIDGE_END_S)
    dead = _first_dead(policies)
    return ProcessEnded(bridge, reason) if dead is None else _died(dead, f"bridge: {reason}")


def _first_dead(children: list[Child]) -> Child | None:
    return next((child for child in children if child.process.poll() is not None), None)


def _died(child: Child, consequence: str = "") -> ProcessEnded:
    """The error about a child that ended by itself: its status, last output and the consequence."""
    lines = [f"exited with status {child.process.returncode}", *child.last_words(), consequence]
    return ProcessEnded(child, "\n            ".join(filter(None, lines)))
