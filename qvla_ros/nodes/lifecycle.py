"""A lifecycle node whose transitions report their failures.

rclpy swallows what a transition raises, or dies of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from qvla_ros.errors import QvlaError

TWIN_PERIOD_S = 2.0  # how often the graph is searched for another node of this name


class ReportingLifecycleNode(LifecycleNode):
    """Fills in `configure`, `activate`, `deactivate` and `release`.

    What they raise is logged and the transition fails.

    `startup_error` holds what the last transition failed with. `release` follows cleanup, shutdown
    and errors.
    """

    startup_error: Exception | None = None

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._twins = 0
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TWIN_PERIOD_S, self._look_for_twins, clock=clock)

    def configure(self) -> None:
        raise NotImplementedError

    def activate(self) -> None:
        raise NotImplementedError

    def deactivate(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        return (
            self._transition(self.activate)
            if result == TransitionCallbackReturn.SUCCESS
            else result
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._transition(self.deactivate)
        return (
            super().on_deactivate(state) if result == TransitionCallbackReturn.SUCCESS else result
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self.release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self.release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self.release)

    def _look_for_twins(self) -> None:
        """Says when another node of this name comes; one that was killed is seen until its lease
        ends.
        """
        own = self.get_fully_qualified_name()
        names = self.get_node_names_and_namespaces()
        twins = sum(f"{space.rstrip('/')}/{name}" == own for name, space in names) - 1
        if twins > self._twins:
            self.get_logger().error(
                f"another node is called {own}: calls of ~/arm and others reach either, and "
                "both publish on the same topics. Stop one of them, or start it with "
                "-r __node:=ANOTHER or -r __ns:=/ANOTHER"
            )
        self._twins = twins

    def _transition(self, action: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:
            self.startup_error = error
            self.get_logger().error(
                str(error) if isinstance(error, QvlaError) else traceback.format_exc()
            )
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS
