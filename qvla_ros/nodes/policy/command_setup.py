"""Reads from parameters and bundle how a policy's actions become commands.

All is checked before there is a thread or a publisher.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import MotionLimits, motion_limits, stop_limits
from qvla_ros.control.setpoint import MotionSpec, motion_spec
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.policy.outputs.form import CommandForm, command_form
from qvla_ros.parameters.policy import PolicyParameters


@dataclass(frozen=True)
class CommandSetup:
    """The forms and limits of a robot's commands.

    form: of the messages; spec: how actions move a setpoint; limits: on motion; braking: on a stop;
    settings: of the controller, limits in time among them.
    """

    form: CommandForm
    spec: MotionSpec
    limits: MotionLimits
    braking: MotionLimits
    settings: ControllerSettings
    blend_steps: int

    def controller(self) -> Controller:
        """Makes a new controller, disarmed."""
        return Controller(self.settings, self.spec, self.limits, self.blend_steps, self.braking)


def command_setup(parameters: PolicyParameters, actions: ActionSpec) -> CommandSetup:
    """Checks and converts the parameters of the commands.

    Raises QvlaError where parameters and bundle do not fit, a limit is missing or means nothing.
    """
    commands = parameters.commands
    hz = commands.control_hz
    period_s = 1.0 / hz if hz > 0 else actions.control_period_s
    _require_a_prompt_control_thread(period_s, parameters)
    form = command_form(commands, parameters.watchdogs.stop_action, actions, period_s)
    spec = motion_spec(actions, commands.linear_scale or None, commands.angular_scale or None)
    axes = 3 if spec.is_pose else len(form.joints)
    limits = motion_limits(axes, **asdict(parameters.limits))
    _require_a_workspace(limits.linear_low, limits.linear_high)
    watchdogs = parameters.watchdogs
    braking = stop_limits(
        limits, watchdogs.max_stop_deceleration, watchdogs.max_stop_angular_deceleration_rad_s2
    )
    settings = _settings(parameters, form)
    return CommandSetup(form, spec, limits, braking, settings, commands.blend_steps)


def _settings(parameters: PolicyParameters, form: CommandForm) -> ControllerSettings:
    watchdogs = parameters.watchdogs
    return ControllerSettings(
        period_s=form.period_s,
        max_image_age_s=parameters.inputs.max_image_age_s,
        inference_timeout_s=watchdogs.inference_timeout_s,
        max_command_age_s=watchdogs.max_command_age_s,
        deadman_timeout_s=watchdogs.deadman_timeout_s if watchdogs.deadman else 0.0,
        max_clock_jump_s=watchdogs.max_clock_jump_s,
        max_stall_s=watchdogs.max_stall_s,
        max_idle_s=watchdogs.max_idle_s,
        stop=form.stop_action,
        max_linear_lead=watchdogs.max_linear_lead,
        max_angular_lead_rad=watchdogs.max_angular_lead_rad,
        measured_velocity_margin=watchdogs.measured_velocity_margin,
        use_sim_time=parameters.use_sim_time,
        follow_measured=form.output.follows_measured,
        reaction_time_s=watchdogs.reaction_time_s,
        following_window_s=watchdogs.following_window_s,
        needs_ready=bool(watchdogs.ready_topic),
        look_ahead_s=form.look_ahead_s,
        even_tail=not form.with_velocities,
    )


def _require_a_prompt_control_thread(period_s: float, parameters: PolicyParameters) -> None:
    """Stops are sent by ticks: a limit in time that is shorter than a period would be none."""
    watchdogs = parameters.watchdogs
    limits_s = {
        "max_image_age_s": parameters.inputs.max_image_age_s,
        "inference_timeout_s": watchdogs.inference_timeout_s,
        "max_command_age_s": watchdogs.max_command_age_s,
        "max_clock_jump_s": watchdogs.max_clock_jump_s,
        "max_stall_s": watchdogs.max_stall_s,
        "max_idle_s": watchdogs.max_idle_s,
    }
    if watchdogs.deadman:
        limits_s["deadman_timeout_s"] = watchdogs.deadman_timeout_s
    shortest = min(limits_s, key=lambda name: limits_s[name])
    if period_s > limits_s[shortest]:
        hz = parameters.commands.control_hz
        found = f"{hz:g}, which is a command every {period_s:g} s"
        expected = (
            f"a period within {shortest} = {limits_s[shortest]:g} s: a stop waits for the next one"
        )
        raise QvlaError("parameter control_hz", found, expected, "-p control_hz:=100.0")


def _require_a_workspace(low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise QvlaError(
            "parameters linear_low and linear_high",
            f"{low} to {high}",
            "finite limits on every axis",
            "give the corners of the space (or the joint limits) that commands must never leave",
        )
