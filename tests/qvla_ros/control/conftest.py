"""A controller on a bench of its own: its clocks, and a robot that follows its commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qvla_ros.control.controller import Controller
from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import MotionLimits, motion_limits
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk

SPECS = {
    "delta_end_effector_pose": MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6),
    "joint_position": MotionSpec("joint_position", 1.0, 1.0, None),
}
FREE = motion_limits(3)


class Rig:
    """A controller with its clocks and its robot; see the module.

    The deltas of its plans are all (1, 0, ... 0); a plan has `steps` actions of `step_dt_s`.
    """

    period_s = 0.01
    step_dt_s = 0.05
    steps = 8
    start = Setpoint(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]), 1.0)
    settings = ControllerSettings(
        period_s, max_image_age_s=0.5, inference_timeout_s=0.4, max_command_age_s=0.1
    )

    def __init__(
        self,
        kind: str = "delta_end_effector_pose",
        limits: MotionLimits = FREE,
        blend_steps: int = 0,
        **settings: Any,
    ) -> None:
        spec = SPECS[kind]
        self.controller = Controller(replace(self.settings, **settings), spec, limits, blend_steps)
        self.steady_s = 1000.0 - 2.0 * REST_S
        self.ros_ns = 10**18
        self.measured: Setpoint | None = self.start if spec.is_pose else Setpoint(self.start.linear)
        self.follows = True
        self.looks = True
        self.busy_s = 0.0
        self.commands: list[Setpoint] = []
        self.stops: list[StopReason] = []
        for _ in range(2):  # the arm is seen at rest, for long enough to be armed
            self.steady_s += REST_S
            self.ros_ns += round(REST_S * 1e9)
            self.controller.tick(self.ros_ns, self.steady_s, self.measured)

    def tick(self, seconds: float = period_s, ros_seconds: float | None = None) -> Decision:
        self.steady_s += seconds
        self.ros_ns += round((seconds if ros_seconds is None else ros_seconds) * 1e9)
        if self.looks:
            self.controller.feed_input(self.ros_ns)
        decision = self.controller.tick(self.ros_ns, self.steady_s, self.measured, self.busy_s)
        if decision.command is not None:
            self.commands.append(decision.command)
            self.measured = decision.command if self.follows else self.measured
        if decision.stop is not None:
            self.stops.append(decision.stop)
        return decision

    def plan(self, actions: Any = None, count: int = steps) -> int | None:
        if actions is None:
            actions = np.tile([1.0, 0, 0, 0, 0, 0, 0.0], (count, 1))
        return self.controller.set_chunk(
            PlannedChunk(self.ros_ns, self.step_dt_s, np.asarray(actions, float)), self.ros_ns
        )

    def arm(self) -> None:
        self.tick()
        self.controller.arm(self.measured, self.ros_ns)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.period_s)):
            self.tick()

    def moving(self) -> Rig:
        """Armed and a tenth of a second into a plan."""
        self.arm()
        self.plan(count=40)
        self.run(0.1)
        assert len(self.commands) == 10
        return self


@pytest.fixture(scope="session")
def make_rig() -> type[Rig]:
    """make_rig(kind, limits, blend_steps, name=setting) is a rig; its class attributes say what all
    rigs have.
    """
    return Rig
