"""The LIBERO bridge: a simulated arm on ROS topics, which runs episodes with policies in turn.

Each policy has its own namespace. Episode i runs for every policy in turn from the same initial
state. `timing`:
- lock_step: the bridge publishes one stamped observation, waits for the chunk with that stamp,
  executes it, and repeats. Stamps are the node's clock (system time) at the moment of publication;
  the simulation stands still while the policy computes, so the images are still true then.
- real_time: simulated time goes on while the policy computes, see qvla_ros.simulation.real_time.
  The bridge publishes /clock, stamps are simulated time, and policies run with use_sim_time. Each
  initial state is run with every one of `handovers` and `latencies_s`; `faults` are injected
  (qvla_ros.simulation.faults).

What it prints: docs/architecture.md, "What the bridge prints".

When a policy is absent, vanishes, is late or sends a chunk that may not be executed, the arm is
held still, the reason is printed and the run ends with exit code LOST.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rclpy.executors import Executor
from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.exit_codes import LOST
from qvla_ros.nodes.libero_bridge.episode_record import Start, announced, key_of, outcome_of
from qvla_ros.nodes.libero_bridge.episode_run import EpisodeRun, LostInEpisode, RealTimeRun
from qvla_ros.nodes.libero_bridge.events import emit, without_nan
from qvla_ros.nodes.libero_bridge.policy_link import PolicyLink, PolicyLost
from qvla_ros.nodes.libero_bridge.simulated_clock import SimulatedClock
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.nodes.process import spin_once
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.simulation.episode_log import EpisodeLog
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.faults import parse_faults
from qvla_ros.simulation.libero import LiberoTask
from qvla_ros.simulation.rollout import SimulatedTask
from qvla_ros.simulation.specification import CONTROL_PERIOD_S
from qvla_ros.simulation.video import write_video


class LiberoBridge:
    """Runs all episodes that the node's parameters ask for; see the module."""

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
        """Returns 0 when every episode has run, LOST when a policy was lost."""
        given = self._episodes
        first = given.init_state_offset
        init_states = range(first, first + given.num_trials_per_task)
        starts = len(given.task_ids) * len(init_states) * len(self._conditions)
        emit("start", policies=list(given.policies), episodes=starts * len(self._links))
        try:
            for link in self._links:
                link.wait_until_ready(given.startup_timeout_s)
            for task_id in given.task_ids:
                self._run_task(task_id, init_states)
        except PolicyLost as reason:
            hold = asdict(reason.hold) if isinstance(reason, LostInEpisode) else None
            emit("error", reason=str(reason), hold=hold)
            return LOST
        emit("end")
        return 0

    def _run_task(self, task_id: int, init_states: range) -> None:
        task = self._make_task(task_id)
        try:
            _require_init_states(task, init_states)
            for init_state in init_states:
                for conditions in self._conditions:
                    for link in self._links:
                        self._run_episode(task, Start(task_id, init_state, conditions), link)
        finally:
            task.close()

    def _make_task(self, task_id: int) -> SimulatedTask:
        given = self._episodes
        kind = FakeTask if given.simulator == "fake" else LiberoTask
        return kind(given.task_suite_name, task_id, given.camera_size, given.max_steps or None)

    def _run_episode(self, task: SimulatedTask, start: Start, link: PolicyLink) -> None:
        """Prints the start, runs the episode unless the log has it, and prints its record."""
        key = key_of(self._episodes, self._real_time.faults, task.max_steps, start, link)
        emit("episode_start", instruction=task.instruction, **announced(key))
        record = self._log.find(**key)
        if record is None:
            record = self._attempt(task, start, link, key)
            self._log.append(record)
        else:
            record = {**record, "resumed": True}
        emit("episode", **record)

    def _attempt(
        self, task: SimulatedTask, start: Start, link: PolicyLink, key: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Runs one episode and returns its record."""
        started_s = time.monotonic()
        run = self._new_run(task, start, link)
        run.run(
            start.init_state,
            self._episodes.seed,
            lambda step: emit("step", policy=link.namespace, step=step),
        )
        record = {
            **key,
            "instruction": task.instruction,
            **outcome_of(run, time.monotonic() - started_s),
            "engine": link.status.engine if link.status else "",
            "video": self._write_film(start, link.namespace, run),
        }
        return without_nan(record)

    def _new_run(self, task: SimulatedTask, start: Start, link: PolicyLink) -> EpisodeRun:
        filmed = bool(self._episodes.video_dir) and link.namespace not in self._filmed
        timeout_s = self._episodes.response_timeout_s
        if start.conditions is None or self._clock is None:
            return EpisodeRun(task, link, timeout_s, filmed)
        return RealTimeRun(
            task, link, timeout_s, filmed, start.conditions, self._faults, self._clock
        )

    def _write_film(self, start: Start, policy: str, run: EpisodeRun) -> str | None:
        """Writes the frames that the policy read; returns the path, None if it was not filmed."""
        frames = run.measurements.frames
        if not frames:
            return None
        name = f"{policy}_task{start.task_id}_init{start.init_state}.mp4"
        path = Path(self._episodes.video_dir) / name
        duration_s = run.rollout.steps * CONTROL_PERIOD_S
        write_video(path, frames, len(frames) / duration_s)  # it plays in simulated time
        self._filmed.add(policy)
        return str(path)

    def _wait(self, duration_s: float) -> None:
        if self._clock is not None:
            self._clock.publish()
        spin_once(self._executor, duration_s)


def _require_init_states(task: SimulatedTask, init_states: range) -> None:
    if init_states[-1] >= task.init_state_count:
        found = init_states[-1] + 1
        expected = f"initial states below {task.init_state_count}"
        fix = "lower num_trials_per_task or init_state_offset"
        raise QvlaError("init_state_offset + num_trials_per_task", found, expected, fix)
