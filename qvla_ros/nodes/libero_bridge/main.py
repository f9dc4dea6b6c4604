"""The LIBERO bridge: a simulated arm on ROS topics that runs episodes with one policy after the
other.

Each policy has its own namespace. Episode i runs for every policy in turn from the same initial state. `timing`:
- lock_step: the bridge publishes one stamped observation, waits for the chunk with that stamp, executes it, repeats.
  Stamps are the node's clock (system time) at the moment of publication; the simulation stands
  still while the policy thinks, so that is also when the images were true.
- real_time: simulated time goes on while the policy thinks, see qvla_ros.simulation.real_time. The bridge publishes
  /clock, stamps are simulated time, and policies run with use_sim_time. Each initial state is run
  with every one of `handovers` and `latencies_s`; `faults` are injected
  (qvla_ros.simulation.faults).

What it prints: docs/architecture.md, "What the bridge prints".

A policy that is absent, vanishes, is late or sends what may not be executed: the arm is held still,
the reason is printed and the process exits with 3. Run it with `python -m
qvla_ros.nodes.libero_bridge --ros-args -p policies:='[float]' -p task_ids:='[0]'`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import Executor
from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.exit_codes import LOST
from qvla_ros.nodes.libero_bridge.episode import EpisodeRun, LostInEpisode, RealTimeRun
from qvla_ros.nodes.libero_bridge.episode_log import EpisodeLog
from qvla_ros.nodes.libero_bridge.events import emit, without_nan
from qvla_ros.nodes.libero_bridge.policy_link import PolicyLink, PolicyLost
from qvla_ros.nodes.libero_bridge.simulated_clock import SimulatedClock
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.nodes.process import Interrupted, destroy, make_executor, run_node, spin_once
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.simulation.faults import parse_faults
from qvla_ros.simulation.libero import LiberoTask
from qvla_ros.simulation.motion import rms_jerk_m_s3
from qvla_ros.simulation.real_time import Conditions
from qvla_ros.simulation.rollout import SimulatedTask
from qvla_ros.simulation.specification import CONTROL_PERIOD_S
from qvla_ros.simulation.video import write_video


class LiberoBridge:
    """Runs all episodes of the parameters; see the module."""

    def __init__(self, node: Node, executor: Executor) -> None:
        parameters = declare_parameters(node, BridgeParameters)
        self._episodes = parameters.episodes
        self._real_time = parameters.real_time
        self._conditions = parameters.conditions()
        self._faults = parse_faults(self._real_time.faults)
        self._clock = SimulatedClock(node) if self._episodes.timing == "real_time" else None
        self._executor = executor
        self._executor.add_node(node)
        stamps_ns = None if self._clock is None else self._clock.time_ns
        self._links = [
            PolicyLink(node, name, self._wait, stamps_ns) for name in self._episodes.policies
        ]
        self._log = EpisodeLog(
            Path(self._episodes.output_dir) if self._episodes.output_dir else None
        )
        self._filmed: set[str] = set()

    def run(self) -> int:
        """0 when every episode has run, 3 when a policy was lost."""
        settings = self._episodes
        starts = range(
            settings.init_state_offset,
            settings.init_state_offset + settings.num_trials_per_task,
        )
        total = len(settings.task_ids) * len(starts) * len(self._conditions) * len(self._links)
        emit("start", policies=list(settings.policies), episodes=total)
        try:
            for link in self._links:
                link.wait_until_ready(settings.startup_timeout_s)
            for task_id in settings.task_ids:
                self._run_task(task_id, starts)
        except PolicyLost as reason:
            hold = asdict(reason.hold) if isinstance(reason, LostInEpisode) else None
            emit("error", reason=str(reason), hold=hold)
            return LOST
        emit("end")
        return 0

    def _run_task(self, task_id: int, starts: range) -> None:
        task = self._make_task(task_id)
        try:
            _check_starts(task, starts)
            for init_state in starts:
                for conditions in self._conditions:
                    for link in self._links:
                        self._episode(task, task_id, init_state, link, conditions)
        finally:
            task.close()

    def _make_task(self, task_id: int) -> SimulatedTask:
        kind: Any = LiberoTask
        if self._episodes.simulator == "fake":
            from qvla_ros.simulation.fake import FakeTask

            kind = FakeTask
        max_steps = self._episodes.max_steps or None
        return kind(self._episodes.task_suite_name, task_id, self._episodes.camera_size, max_steps)

    def _episode(
        self,
        task: SimulatedTask,
        task_id: int,
        init_state: int,
        link: PolicyLink,
        conditions: Conditions | None,
    ) -> None:
        """Announce it, run it unless the log has it, print and log how it went."""
        settings = self._episodes
        key = {
            "task_suite_name": settings.task_suite_name,
            "task_id": task_id,
            "init_state": init_state,
            "seed": settings.seed,
            "max_steps": task.max_steps,
            "policy": link.namespace,
            "bundle_id": link.status.bundle_id if link.status else "",
            **_described(conditions, self._real_time.faults),
        }
        shown = ("policy", "task_id", "init_state", "max_steps", "label")
        announced = {name: key[name] for name in shown if name in key}
        emit("episode_start", instruction=task.instruction, **announced)
        finished = self._log.find(**key)
        if finished is not None:
            emit("episode", **{**finished, "resumed": True})
            return
        started_s = time.monotonic()
        episode = self._new_episode(task, link, conditions)
        episode.run(
            init_state,
            settings.seed,
            lambda step: emit("step", policy=link.namespace, step=step),
        )
        outcome = {
            **key,
            "instruction": task.instruction,
            **_outcome(episode, time.monotonic() - started_s),
        }
        outcome["engine"] = link.status.engine if link.status else ""
        outcome["video"] = self._film(link.namespace, task_id, init_state, episode)
        outcome = without_nan(outcome)
        self._log.append(outcome)
        emit("episode", **outcome)

    def _new_episode(
        self, task: SimulatedTask, link: PolicyLink, conditions: Conditions | None
    ) -> EpisodeRun:
        filmed = bool(self._episodes.video_dir) and link.namespace not in self._filmed
        timeout_s = self._episodes.response_timeout_s
        if conditions is None or self._clock is None:
            return EpisodeRun(task, link, timeout_s, filmed)
        return RealTimeRun(task, link, timeout_s, filmed, conditions, self._faults, self._clock)

    def _film(self, policy: str, task_id: int, init_state: int, episode: EpisodeRun) -> str | None:
        """Write the frames that the policy read; the path, or None when this policy has its film
        already.
        """
        frames = episode.record.frames
        steps = episode.rollout.steps
        if not frames:
            return None
        path = Path(self._episodes.video_dir) / f"{policy}_task{task_id}_init{init_state}.mp4"
        write_video(
            path, frames, len(frames) / (steps * CONTROL_PERIOD_S)
        )  # plays in simulated time
        self._filmed.add(policy)
        return str(path)

    def _wait(self, duration_s: float) -> None:
        if self._clock is not None:
            self._clock.publish()
        spin_once(self._executor, duration_s)


def _outcome(episode: EpisodeRun, duration_s: float) -> dict[str, Any]:
    """What an episode's record says of how it went."""
    rollout = episode.rollout
    record = episode.record
    return {
        "success": rollout.success,
        "reason": episode.reason,
        "steps": rollout.steps,
        "duration_s": duration_s,
        "inference_ms": record.inference_ms,
        "stamp_to_command_ms": record.stamp_to_command_ms,
        "jerk_m_s3": rms_jerk_m_s3(rollout.commanded_m, CONTROL_PERIOD_S),
        **({"real_time": record.real_time} if record.real_time else {}),
    }


def _described(conditions: Conditions | None, faults: Sequence[str]) -> dict[str, Any]:
    """An episode's conditions in its record, and as a label to show; in lock-step there are none."""
    if conditions is None:
        return {}
    return {
        "conditions": {**asdict(conditions), "faults": [text for text in faults if text]},
        "label": conditions.label,
    }


def _check_starts(task: SimulatedTask, starts: range) -> None:
    if starts[-1] >= task.init_state_count:
        expected = f"initial states below {task.init_state_count}"
        fix = "lower num_trials_per_task or init_state_offset"
        raise QvlaError("init_state_offset + num_trials_per_task", starts[-1] + 1, expected, fix)


def serve() -> int:
    """Run the bridge as a process. Exit code 0, 2 for bad parameters, 3 for a lost policy, 130 for
    Ctrl-C.
    """
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
    return run_node(serve, args)
