"""The LIBERO bridge: a simulated arm on ROS topics that runs episodes with one policy after the other, in lock-step.

Each policy has its own namespace. Episode i runs for every policy in turn from the same initial state: the bridge
publishes one stamped observation, waits for the chunk with that stamp, executes it, and repeats. Stamps are the node's
clock (system time) at the moment of publication; the simulation stands still while the policy thinks, so that is also
when the images were true. What it prints: docs/architecture.md, "What the bridge prints".

A policy that is absent, vanishes, is late or sends what may not be executed: the arm is held still, the reason is
printed and the process exits with 3. Run it with
`python -m qvla_ros.nodes.libero_bridge --ros-args -p policies:='[float]' -p task_ids:='[0]'`.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.episode_log import EpisodeLog
from qvla_ros.nodes.parameters import ParameterSpec, declare_parameters, seconds
from qvla_ros.nodes.policy_link import PolicyLink, PolicyLost
from qvla_ros.nodes.process import Interrupted, ignore_signals, run_node
from qvla_ros.simulation.libero import LiberoObservation, LiberoTask
from qvla_ros.simulation.motion import rms_jerk_m_s3
from qvla_ros.simulation.rollout import Hold, Rollout, Task, execute, hold_still
from qvla_ros.simulation.specification import CONTROL_PERIOD_S
from qvla_ros.simulation.video import side_by_side, write_video

EXIT_POLICY_LOST = 3
MAX_COUNT = 10**6

PARAMETERS = (
    ParameterSpec("policies", ["policy"], "namespaces of the policy nodes, run in turn"),
    ParameterSpec("simulator", "libero", "fake: no physics, to try out the wiring", choices=("libero", "fake")),
    ParameterSpec("task_suite_name", "libero_object", "LIBERO suite"),
    ParameterSpec("task_ids", [0], "tasks of the suite", kind=Parameter.Type.INTEGER_ARRAY),
    ParameterSpec("num_trials_per_task", 1, "episodes of each task and policy", 1, MAX_COUNT),
    ParameterSpec("init_state_offset", 0, "official initial state of the first episode", 0, MAX_COUNT),
    ParameterSpec("max_steps", 0, "step limit of an episode; 0: the suite's", 0, MAX_COUNT),
    ParameterSpec("seed", 0, "fixes what the initial states leave open", 0, 2**31 - 1),
    ParameterSpec("camera_size", 256, "height and width of the cameras in pixels", 16, 2048),
    ParameterSpec("output_dir", "", "where episodes.jsonl goes, and what makes a run resumable; empty: nowhere"),
    ParameterSpec("video_dir", "", "where the first episode of each policy goes as MP4; empty: nowhere"),
    seconds("startup_timeout_s", 60.0, "how long to wait for the policies at the start", minimum=0.1),
    seconds("response_timeout_s", 10.0, "how long to wait for a chunk", minimum=0.1),
)


@dataclass
class Record:
    """One number a chunk, and the frames that the policy read while it is filmed."""

    inference_ms: list[float] = field(default_factory=list)
    stamp_to_command_ms: list[float] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)


class LiberoBridge:
    """Runs all episodes of the parameters; see the module."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.settings: dict[str, Any] = declare_parameters(node, PARAMETERS)
        _check_settings(self.settings)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._links = [PolicyLink(node, name, self._executor.spin_once) for name in self.settings["policies"]]
        self._log = EpisodeLog(Path(self.settings["output_dir"]) if self.settings["output_dir"] else None)
        self._filmed: dict[str, str] = {}
        self._hold: Hold | None = None

    def run(self) -> int:
        """0 when every episode has run, 3 when a policy was lost."""
        settings = self.settings
        starts = range(settings["init_state_offset"], settings["init_state_offset"] + settings["num_trials_per_task"])
        total = len(settings["task_ids"]) * len(starts) * len(self._links)
        emit("start", policies=list(settings["policies"]), episodes=total)
        try:
            for link in self._links:
                link.wait_until_ready(settings["startup_timeout_s"])
            for task_id in settings["task_ids"]:
                task = self._make_task(task_id)
                try:
                    _check_starts(task, starts)
                    for init_state in starts:
                        for link in self._links:
                            self._episode(task, task_id, init_state, link)
                finally:
                    task.close()
        except PolicyLost as reason:
            emit("error", reason=str(reason), hold=None if self._hold is None else asdict(self._hold))
            return EXIT_POLICY_LOST
        emit("end")
        return 0

    def _make_task(self, task_id: int) -> Task:
        kind: Any = LiberoTask
        if self.settings["simulator"] == "fake":
            from qvla_ros.simulation.fake import FakeTask

            kind = FakeTask
        max_steps = self.settings["max_steps"] or None
        return kind(self.settings["task_suite_name"], task_id, self.settings["camera_size"], max_steps)

    def _episode(self, task: Task, task_id: int, init_state: int, link: PolicyLink) -> None:
        key = {
            "task_suite_name": self.settings["task_suite_name"],
            "task_id": task_id,
            "init_state": init_state,
            "seed": self.settings["seed"],
            "max_steps": task.max_steps,
            "policy": link.namespace,
            "bundle_id": link.status.bundle_id if link.status else "",
        }
        finished = self._log.find(**key)
        emit(
            "episode_start",
            policy=link.namespace,
            task_id=task_id,
            instruction=task.instruction,
            init_state=init_state,
            max_steps=task.max_steps,
        )
        if finished is not None:
            emit("episode", **{**finished, "resumed": True})
            return
        started_s = time.monotonic()
        rollout, record = Rollout(), Record()
        observation = task.reset(init_state, self.settings["seed"])
        link.tell(task.instruction)
        try:
            link.arm(True)
            while not rollout.success and rollout.steps < task.max_steps:
                observation = self._one_chunk(task, link, rollout, record, observation)
                emit("step", policy=link.namespace, step=rollout.steps)
            link.arm(False)
        except PolicyLost as lost:
            self._hold = hold_still(task, rollout, observation)
            raise PolicyLost(f"{lost} {self._hold}") from None
        except BaseException:
            ignore_signals()  # the process is about to end, a second or two from now
            with suppress(Exception):  # in the middle of a chunk: one step of staying tells where the arm is
                stay = np.concatenate([np.zeros(6), rollout.last_action[6:]])
                hold_still(task, rollout, task.step(stay, render=False)[0])
            raise
        finally:
            with suppress(Exception):  # whatever went wrong before is what must be heard of
                link.disarm_if_it_listens()
        episode = {
            **key,
            "instruction": task.instruction,
            "success": rollout.success,
            "reason": "success" if rollout.success else "step limit",
            "steps": rollout.steps,
            "duration_s": time.monotonic() - started_s,
            "inference_ms": record.inference_ms,
            "stamp_to_command_ms": record.stamp_to_command_ms,
            "jerk_m_s3": rms_jerk_m_s3(rollout.commanded_m, CONTROL_PERIOD_S),
            "engine": link.status.engine if link.status else "",
            "video": self._film(link.namespace, task_id, init_state, rollout, record.frames),
        }
        finished = without_nan(episode)
        self._log.append(finished)
        emit("episode", **finished)

    def _one_chunk(
        self, task: Task, link: PolicyLink, rollout: Rollout, record: Record, observation: LiberoObservation
    ) -> LiberoObservation:
        if self.settings["video_dir"] and link.namespace not in self._filmed:
            record.frames.append(side_by_side(observation.images))
        answer = link.request(observation, task.instruction, self.settings["response_timeout_s"])
        command_ns = self.node.get_clock().now().nanoseconds
        record.inference_ms.append(answer.inference_ms)
        record.stamp_to_command_ms.append((command_ns - answer.published_ns) * 1e-6)
        return execute(task, rollout, observation, answer.actions)

    def _film(
        self, policy: str, task_id: int, init_state: int, rollout: Rollout, frames: list[np.ndarray]
    ) -> str | None:
        """Write the frames that the policy read; the path, or None when this policy has its film already."""
        if not frames:
            return None
        path = Path(self.settings["video_dir"]) / f"{policy}_task{task_id}_init{init_state}.mp4"
        frames_per_second = len(frames) / (rollout.steps * CONTROL_PERIOD_S)  # plays in simulated time
        write_video(path, frames, frames_per_second)
        self._filmed[policy] = str(path)
        return str(path)


def emit(event: str, **fields: Any) -> None:
    """One JSON object on a line of standard output, at once; NaN becomes null."""
    print(json.dumps({"event": event, **without_nan(fields)}, allow_nan=False), flush=True)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _check_settings(settings: dict[str, Any]) -> None:
    for name in ("policies", "task_ids"):
        if len(settings[name]) == 0 or len(set(settings[name])) != len(settings[name]):
            raise QvlaError(
                f"parameter {name}", list(settings[name]), "at least one, no two alike", f"-p {name}:='[...]'"
            )


def _check_starts(task: Task, starts: range) -> None:
    if starts[-1] >= task.init_state_count:
        expected = f"initial states below {task.init_state_count}"
        fix = "lower num_trials_per_task or init_state_offset"
        raise QvlaError("init_state_offset + num_trials_per_task", starts[-1] + 1, expected, fix)


def serve() -> int:
    """Run the bridge as a process. Exit code 0, 2 for bad parameters, 3 for a lost policy, 130 for Ctrl-C."""
    node = rclpy.create_node("libero_bridge")
    try:
        return LiberoBridge(node).run()
    except QvlaError as error:
        emit("error", reason=str(error))
        raise
    except Interrupted:
        emit("error", reason="interrupted")
        raise
    finally:
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    return run_node(serve, args)


if __name__ == "__main__":
    sys.exit(main())
