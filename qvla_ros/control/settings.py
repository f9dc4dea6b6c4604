"""The settings of the controller: limits in time, limits on tracking, and what a stop commands."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qvla_ros.control.outputs import StopAction
from qvla_ros.errors import QvlaError

_POSITIVE = (
    "max_image_age_s",
    "inference_timeout_s",
    "max_command_age_s",
    "max_clock_jump_s",
    "max_stall_s",
    "max_idle_s",
    "max_linear_lead",
    "max_angular_lead_rad",
    "measured_velocity_margin",
)


@dataclass(frozen=True)
class ControllerSettings:
    """Limits of one arm. Names are those of the node's parameters, except for three.

    period_s comes from control_hz, stop from stop_action and output, follow_measured from output.

    period_s: between two commands. max_image_age_s: of the newest observation's stamp, and of the
    measured state. inference_timeout_s: of one inference. max_command_age_s: how long past its last
    step a plan may keep the robot waiting. deadman_timeout_s: 0 for no deadman. max_clock_jump_s:
    between two ticks. max_stall_s: how long ticks, or the thread that hears messages, may stand
    still; never longer than deadman_timeout_s. max_idle_s: how long it stays armed before the first
    plan. max_linear_lead (m or rad, each axis) and
    max_angular_lead_rad: how far the command may run ahead of the measured state.
    measured_velocity_margin: times the velocity limits that the arm may be seen to move at before
    its state is not believed. use_sim_time: ROS time follows /clock. follow_measured: deltas go
    from the measured state instead of the last command; see Output.follows_measured.
    reaction_time_s: with follow_measured, from a command to when it shows in the measured state.
    following_window_s: see Following. needs_ready: the robot must say that it takes commands.
    look_ahead_s: how far ahead of its time motion is sent; 0: it is sent when it is due. even_tail:
    see Course.
    """

    period_s: float
    max_image_age_s: float
    inference_timeout_s: float
    max_command_age_s: float
    deadman_timeout_s: float = 0.0
    max_clock_jump_s: float = 0.5
    max_stall_s: float = math.inf
    max_idle_s: float = math.inf
    stop: StopAction = "hold"
    max_linear_lead: float = math.inf
    max_angular_lead_rad: float = math.inf
    measured_velocity_margin: float = 3.0
    use_sim_time: bool = False
    follow_measured: bool = False
    reaction_time_s: float = 0.2
    following_window_s: float = 0.5
    needs_ready: bool = False
    look_ahead_s: float = 0.0
    even_tail: bool = False

    @property
    def stall_s(self) -> float:
        """When a stall is one: before the deadman, of which nothing is heard in it, seems lost."""
        return min(self.max_stall_s, self.deadman_timeout_s or math.inf)

    def __post_init__(self) -> None:
        if not self.period_s > 0.0:
            found = f"a period_s of {self.period_s}"
            raise QvlaError("parameter control_hz", found, "one above 0", "-p control_hz:=100.0")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not value > 0.0:
                fix = f"-p {name}:=0.5 (SI units)"
                raise QvlaError(f"parameter {name}", value, "a number above 0", fix)
        if not 0.0 <= self.deadman_timeout_s < math.inf:
            fix = "-p deadman_timeout_s:=0.5, or 0 for no deadman"
            raise QvlaError(
                "parameter deadman_timeout_s", self.deadman_timeout_s, "a number, 0 or above", fix
            )
