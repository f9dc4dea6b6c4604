"""A lifecycle node whose transitions report their failures.

rclpy swallows what a transition raises, or dies of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from qvla_ros.errors import QvlaError


class ReportingLifecycleNode(LifecycleNode):
    """Fills in `configure`, `activate`, `deactivate` and `release`.

    What they raise is logged and the transition fails.

    `startup_error` holds what the last transition failed with. `release` follows cleanup, shutdown
    and errors.
    """

    startup_error: Exception | None = None

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
