"""Serves tasks of the policy node: ExecuteInstruction, and the services ~/start and ~/cancel.

Nothing here waits: goals are kept and served by a timer, so one executor thread serves them
beside all else. (An `async` execute callback that awaits a future would do as well, but rclpy polls
such a callback without a pause.)
"""

from __future__ import annotations

import math
import time
from typing import Protocol

from qvla.action import ExecuteInstruction
from rclpy.action import CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import quoted
from qvla_ros.nodes.policy.held_goals import HeldGoals
from qvla_ros.nodes.policy.snapshot import Snapshot
from qvla_ros.nodes.policy.task_rules import (
    Ending,
    Result,
    Task,
    ending,
    expiry,
    goal_refusal,
    preemption,
    refusal,
)

TICK_S = 0.02  # how late the end of a task may be noticed
FEEDBACK_PERIOD_S = 0.1
_GOODBYE_S = 0.3


class TaskHost(Protocol):
    """What the policy node does for its tasks."""

    def snapshot(self) -> Snapshot: ...

    def follow(self, instruction: str | None) -> None:
        """Acts on this instruction from now on, or on none.

        What was planned or is being computed for another one is dropped.
        """

    def instruction_error(self, instruction: str) -> str:
        """Why it cannot be followed, whatever the node's state; empty if it can."""

    def disarm(self, reason: StopReason) -> None:
        """Act on nothing more; the control loop brakes the arm."""

    def is_stopping(self) -> bool:
        """True until the arm has been braked to rest."""


class Tasks:
    """One task at a time. All methods run on the executor's thread."""

    def __init__(self, node: Node, host: TaskHost) -> None:
        self._node = node
        self._host = host
        self._task: Task | None = None
        self._ending: Ending | None = None  # decided; waits for the arm to be at rest
        self._next: str | None = None  # instruction to follow after the end
        self._topic_text: str | None = None
        self._goal: ServerGoalHandle | None = None  # None: started by ~/start
        self._last_feedback_s = float("-inf")
        self._server = HeldGoals(
            node,
            ExecuteInstruction,
            "~/execute_instruction",
            execute_callback=lambda goal: Result(),  # replaced at the end of each goal
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel_goal,
        )
        node.create_service(Trigger, "~/start", self._on_start)
        node.create_service(Trigger, "~/cancel", self._on_cancel)
        # On the steady clock: a task must also end while simulated time stands still.
        self._timer = node.create_timer(
            TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._timer.cancel()

    def hear(self, text: str) -> None:
        """A text came on the instruction topic."""
        end = preemption(self._task, text, self._topic_text)
        self._topic_text = text
        if end is not None:
            self._next = text
            self._end(end, StopReason.cancelled)
        elif self._task is None:
            self._host.follow(text)

    def close(self) -> None:
        """Ends what runs, for the process ends, and lets the result reach its client.

        After the executor.
        """
        if self._task is None:
            return
        # That of before, if it is still there: rclpy hands the result to the one that took the
        # request for it.
        executor = self._node.executor or SingleThreadedExecutor()
        executor.add_node(self._node)
        self._finish(
            self._ending
            or Ending(Result.STOPPED, f"{StopReason.shutdown.name}: the policy node ends")
        )
        end_s = time.monotonic() + _GOODBYE_S
        while time.monotonic() < end_s:
            executor.spin_once(timeout_sec=_GOODBYE_S / 10)
        executor.remove_node(self._node)

    def settle(self) -> bool:
        """Ends a task that was stopped, before the arm is armed.

        False as long as its stop is to be sent.
        """
        if self._task is not None and self._ending is None:
            self._end_if_over(self._task, self._host.snapshot())
        self._finish_if_stopped()
        return self._ending is None

    # Requests.

    def _on_goal(self, goal: ExecuteInstruction.Goal) -> GoalResponse:
        reason = goal_refusal(
            goal.instruction, goal.max_duration_s, self._host.snapshot(), self._task
        )
        reason = reason or self._host.instruction_error(goal.instruction)
        if reason:
            self._node.get_logger().warning(
                f"refused the goal {quoted(goal.instruction)}: {reason}"
            )
        return GoalResponse.REJECT if reason else GoalResponse.ACCEPT

    def _on_accepted(self, goal: ServerGoalHandle) -> None:
        goal.execute()
        self._goal = goal
        self._begin(goal.request.instruction, goal.request.max_duration_s)

    def _on_cancel_goal(self, goal: ServerGoalHandle) -> CancelResponse:
        if self._goal is None or goal.goal_id != self._goal.goal_id:
            return CancelResponse.REJECT
        self._end(
            Ending(Result.CANCELED, "canceled by the goal's client"),
            StopReason.cancelled,
        )
        return CancelResponse.ACCEPT

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        text = self._topic_text
        reason = "no instruction has been received" if text is None else ""
        response.message = reason or refusal(
            text or "", math.inf, self._host.snapshot(), self._task
        )
        response.success = not response.message
        if text is not None and response.success:
            self._begin(text, math.inf)
            response.message = f"following {quoted(text)} until ~/cancel, or a stop"
        return response

    def _on_cancel(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._task is None:
            self._host.disarm(StopReason.cancelled)
            response.message = "no task was running; disarmed"
        else:
            response.message = f"canceled {quoted(self._task.instruction)}; disarmed"
            self._end(Ending(Result.CANCELED, "canceled by ~/cancel"), StopReason.cancelled)
        response.success = True
        return response

    # The task from begin to end.

    def _begin(self, instruction: str, max_duration_s: float) -> None:
        chunks = self._host.snapshot().chunks_published
        self._task = Task(instruction, max_duration_s, self._now_ns(), chunks)
        self._ending = None
        self._next = None
        self._node.get_logger().info(f"following {quoted(instruction)} for {max_duration_s:g} s")
        self._host.follow(instruction)
        self._timer.reset()

    def _on_tick(self) -> None:
        if self._task is None:
            return
        if self._ending is not None:
            self._finish_if_stopped()
            return
        end = expiry(self._task, self._now_ns())
        now_s = time.monotonic()
        if end is None and now_s - self._last_feedback_s < FEEDBACK_PERIOD_S:
            return
        self._last_feedback_s = now_s
        snapshot = self._host.snapshot()
        if not self._end_if_over(self._task, snapshot) and self._goal is not None:
            self._goal.publish_feedback(self._feedback(self._task, snapshot))

    def _feedback(self, task: Task, snapshot: Snapshot) -> ExecuteInstruction.Feedback:
        feedback = ExecuteInstruction.Feedback(steps=task.steps(snapshot), state=snapshot.state)
        feedback.latency_ms = snapshot.inference_ms[-1] if snapshot.inference_ms else 0.0
        feedback.remaining_s = task.remaining_s(self._now_ns())
        return feedback

    def _end_if_over(self, task: Task, snapshot: Snapshot) -> bool:
        end = ending(task, snapshot, self._now_ns())
        if end is not None:
            self._end(end, StopReason.finished)
        return end is not None

    def _finish_if_stopped(self) -> None:
        if self._ending is not None and not self._host.is_stopping():
            self._finish(self._ending)

    def _end(self, end: Ending, reason: StopReason) -> None:
        """Decide it, once, and stop the arm; the result follows once it has been braked to rest."""
        self._ending = self._ending or end
        self._host.disarm(reason)

    def _finish(self, end: Ending) -> None:
        assert self._task is not None
        task = self._task
        goal = self._goal
        self._task = None
        self._goal = None
        self._ending = None
        self._timer.cancel()
        self._host.follow(self._next)
        self._node.get_logger().info(f"{quoted(task.instruction)} is over: {end.message}")
        if goal is not None:
            result = Result(termination_reason=end.termination, message=end.message)
            result.steps, result.duration_s = (
                task.steps(self._host.snapshot()),
                task.duration_s(self._now_ns()),
            )
            self._server.conclude(goal, result)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
