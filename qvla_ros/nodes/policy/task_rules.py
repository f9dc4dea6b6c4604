"""When a task may start and why it ends: decisions over a snapshot of the policy node, without ROS.

A policy does not know whether its task is done. So a task ends by time, because it is cancelled,
or because the arm was stopped, and none of these says anything about success.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qvla.action import ExecuteInstruction
from qvla.msg import PolicyStatus

from qvla_ros.errors import quoted
from qvla_ros.nodes.policy.snapshot import Snapshot

Result = ExecuteInstruction.Result
CLOCK_SLACK_NS = 100_000_000  # a clock may be corrected by so much


@dataclass(frozen=True)
class Ending:
    """Why a task is over: a constant of ExecuteInstruction.Result, and a sentence for a person."""

    termination: int
    message: str


@dataclass(frozen=True)
class Task:
    """An instruction that is followed from `started_ns` (node time) for `max_duration_s`.

    max_duration_s: infinite without a limit.

    chunks_before: Snapshot.chunks_published when it started.
    """

    instruction: str
    max_duration_s: float
    started_ns: int
    chunks_before: int

    def duration_s(self, now_ns: int) -> float:
        """Node time since the start; 0 when the clock was set back behind it."""
        return max(0.0, (now_ns - self.started_ns) * 1e-9)

    def remaining_s(self, now_ns: int) -> float:
        return max(0.0, self.max_duration_s - self.duration_s(now_ns))

    def steps(self, snapshot: Snapshot) -> int:
        """Chunks that were computed since the start."""
        return max(0, snapshot.chunks_published - self.chunks_before)


def refusal(
    instruction: str, max_duration_s: float, snapshot: Snapshot, running: Task | None
) -> str:
    """Returns why a task may not start, with the fix; empty if it may."""
    if not instruction.strip():
        return "the instruction is empty; expected a sentence that names the task"
    if not max_duration_s > 0.0:  # also NaN
        return f"max_duration_s is {max_duration_s:g}; expected a number of seconds above 0"
    if running is not None:
        return f"{quoted(running.instruction)} is being followed. Fix: cancel it first"
    if snapshot.state in (PolicyStatus.INACTIVE, PolicyStatus.FAULT):
        return snapshot.reason
    if not snapshot.armed:
        return "the node is disarmed. Fix: call ~/arm with true, when it is safe that the arm moves"
    return ""


def goal_refusal(
    instruction: str, max_duration_s: float, snapshot: Snapshot, running: Task | None
) -> str:
    """Why a goal is refused: as `refusal`, and for a missing limit in time."""
    if math.isinf(max_duration_s):
        return "max_duration_s is infinite; expected a finite number of seconds"
    return refusal(instruction, max_duration_s, snapshot, running)


def ending(task: Task, snapshot: Snapshot, now_ns: int) -> Ending | None:
    """Returns why the task is over by itself.

    None as long as it is not. A stop that was noticed outranks the clock.
    """
    if snapshot.state == PolicyStatus.FAULT:
        return Ending(Result.FAULT, snapshot.reason)
    if snapshot.state == PolicyStatus.INACTIVE:
        return Ending(
            Result.STOPPED,
            f"{snapshot.stop_reason or 'deactivated'}: the policy node is not active",
        )
    if not snapshot.armed:
        return Ending(Result.STOPPED, f"{snapshot.stop_reason or 'disarmed'}: commands ended")
    return expiry(task, now_ns)


def expiry(task: Task, now_ns: int) -> Ending | None:
    """The end by the clock, if it has come, or if the clock was set back behind the start."""
    if now_ns < task.started_ns - CLOCK_SLACK_NS:
        return Ending(
            Result.STOPPED, "clock_jump: the clock was set back behind the start of the task"
        )
    if task.duration_s(now_ns) < task.max_duration_s:
        return None
    return Ending(
        Result.DURATION,
        f"followed for {task.max_duration_s:g} s; whether it succeeded, nobody knows",
    )


def preemption(task: Task | None, text: str, last_text: str | None) -> Ending | None:
    """Decides what a text on the instruction topic does to a task.

    One that repeats itself, or the task, changes nothing.
    """
    if task is None or text in (task.instruction, last_text):
        return None
    return Ending(Result.PREEMPTED, f"another instruction arrived: {quoted(text)}")
