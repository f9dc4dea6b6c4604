"""An action server whose goals stay open while a timer serves them, so that no thread waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qvla.action import ExecuteInstruction
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle

from qvla_ros.nodes.policy.task_rules import Result


class HeldGoals(ActionServer):
    """An action server whose goals execute from their acceptance until `conclude`, with no callback
    in between.
    """

    def notify_execute(
        self, goal_handle: ServerGoalHandle, execute_callback: Callable[..., Any] | None
    ) -> None:
        """Does nothing where rclpy would run the execute callback."""

    def conclude(self, goal: ServerGoalHandle, result: ExecuteInstruction.Result) -> None:
        """Ends a goal: succeeded, canceled or aborted.

        It succeeded if its time was up, is canceled if its client asked for that, else aborted.
        """

        def execute(handle: ServerGoalHandle) -> ExecuteInstruction.Result:
            if result.termination_reason == Result.DURATION:
                handle.succeed()
            elif result.termination_reason == Result.CANCELED and handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            return result

        super().notify_execute(goal, execute)
