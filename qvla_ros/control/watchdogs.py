"""The limits that stop the robot when they are passed.

Each has its reason, its test and the time at which it was passed.

A watchdog is a function of the settings and of what is known at a tick. It gives the time at which
its limit was passed, seconds of the steady clock, or None while the limit holds. What only a tick
can notice counts as passed just after the tick before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.motion import is_usable
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason


class Clocks(NamedTuple):
    """One moment: ROS time in nanoseconds, and seconds of the steady clock."""

    ros_ns: int
    steady_s: float


@dataclass(frozen=True)
class Deadman:
    """The state of the deadman, from ~/enable.

    since_s: when it was last heard to be held or, once it is released, when that was first heard;
    steady clock.
    """

    held: bool = False
    since_s: float = -math.inf

    def heard(self, held: bool, steady_s: float) -> Deadman:
        """The state after one message. A release that repeats itself is no later one."""
        return Deadman(held, steady_s) if held or self.held else self

    def is_held(self, steady_s: float, timeout_s: float) -> bool:
        """Held, and heard within the timeout."""
        return self.held and steady_s - self.since_s <= timeout_s


@dataclass(frozen=True)
class Tick:
    """The facts at one tick of an armed controller.

    before: the clocks at the tick before, None at the first. command: the last setpoint sent, or
    the one that it was armed at. measured: the newest state if it came since the tick before;
    is_believed: it is no further from the one before than the arm can have moved; is_followed: it
    lies on the way that was commanded.
    unmeasured_s: how long ago the last one came, by the robot's clock. input_ns: stamp of the
    newest observation. inference_busy_s: how long the inference under way has run. plan_end_ns:
    when the plan ends or ended. heard_s: when the thread that hears messages was last seen at work,
    armed_s: when it was armed; both of the steady clock.
    """

    now: Clocks
    before: Clocks | None
    command: Setpoint
    measured: Setpoint | None
    unmeasured_s: float
    input_ns: int | None
    deadman: Deadman
    inference_busy_s: float
    plan_end_ns: int | None
    is_believed: bool = True
    heard_s: float = math.inf
    armed_s: float = math.inf
    is_followed: bool = True

    @property
    def noticed_s(self) -> float:
        """The time that counts for what happened since the tick before, steady clock."""
        return just_after(self.before) if self.before is not None else self.now.steady_s


class Passed(NamedTuple):
    """A limit that was passed, and when, seconds of the steady clock."""

    reason: StopReason
    passed_s: float


Watchdog = Callable[[ControllerSettings, Tick], float | None]


def just_after(clocks: Clocks) -> float:
    """The first moment of the steady clock after these, seconds."""
    return math.nextafter(clocks.steady_s, math.inf)


def clock_jump(settings: ControllerSettings, tick: Tick) -> float | None:
    jumped = tick.before is not None and has_jumped(settings, tick.before, tick.now)
    return tick.noticed_s if jumped else None


def has_jumped(settings: ControllerSettings, before: Clocks, now: Clocks) -> bool:
    """Whether ROS time was set between two ticks."""
    ros_s = (now.ros_ns - before.ros_ns) * 1e-9
    if settings.use_sim_time:  # it may run at any speed or stand still
        return not 0.0 <= ros_s <= settings.max_clock_jump_s
    return abs(ros_s - (now.steady_s - before.steady_s)) > settings.max_clock_jump_s


def stalled(settings: ControllerSettings, tick: Tick) -> float | None:
    since_s = tick.heard_s if tick.before is None else min(tick.heard_s, tick.before.steady_s)
    passed_s = since_s + settings.stall_s
    return passed_s if tick.now.steady_s > passed_s else None


def deadman_lost(settings: ControllerSettings, tick: Tick) -> float | None:
    timeout_s = settings.deadman_timeout_s
    if timeout_s == 0.0 or tick.deadman.is_held(tick.now.steady_s, timeout_s):
        return None
    return tick.deadman.since_s + timeout_s if tick.deadman.held else tick.deadman.since_s


def unusable_measurement(settings: ControllerSettings, tick: Tick) -> float | None:
    usable = tick.measured is None or is_usable(tick.measured)
    return None if usable and tick.is_believed else tick.noticed_s


def tracking_error(settings: ControllerSettings, tick: Tick) -> float | None:
    leads = tick.measured is not None and _leads(tick.command, tick.measured, settings)
    return tick.noticed_s if leads else None


def not_following(settings: ControllerSettings, tick: Tick) -> float | None:
    return None if tick.is_followed else tick.noticed_s


def stale_input(settings: ControllerSettings, tick: Tick) -> float | None:
    if not is_stale(tick.input_ns, tick.now.ros_ns, settings.max_image_age_s):
        return None
    if tick.input_ns is None:
        return tick.noticed_s
    age_s = (tick.now.ros_ns - tick.input_ns) * 1e-9
    return tick.now.steady_s - (age_s - settings.max_image_age_s)


def missing_measurement(settings: ControllerSettings, tick: Tick) -> float | None:
    return tick.noticed_s if tick.unmeasured_s > settings.max_image_age_s else None


def late_inference(settings: ControllerSettings, tick: Tick) -> float | None:
    late_s = tick.inference_busy_s - settings.inference_timeout_s
    return tick.now.steady_s - late_s if late_s > 0.0 else None


def unused(settings: ControllerSettings, tick: Tick) -> float | None:
    if tick.plan_end_ns is not None:
        return None
    passed_s = tick.armed_s + settings.max_idle_s
    return passed_s if tick.now.steady_s > passed_s else None


def plan_exhausted(settings: ControllerSettings, tick: Tick) -> float | None:
    if tick.plan_end_ns is None:
        return None
    late_s = (tick.now.ros_ns - tick.plan_end_ns) * 1e-9 - settings.max_command_age_s
    return tick.now.steady_s - late_s if late_s > 0.0 else None


# In this order: a robot that is gone takes its state with it in the same tick, so the age of the
# inputs comes before that of the measurement. A process that stalled has heard nobody: that is no
# fault of the deadman's or of the inputs.
WATCHDOGS: tuple[tuple[StopReason, Watchdog], ...] = (
    (StopReason.clock_jump, clock_jump),
    (StopReason.stalled, stalled),
    (StopReason.deadman_lost, deadman_lost),
    (StopReason.bad_measurement, unusable_measurement),
    (StopReason.tracking_error, tracking_error),
    (StopReason.not_following, not_following),
    (StopReason.stale_input, stale_input),
    (StopReason.bad_measurement, missing_measurement),
    (StopReason.late_inference, late_inference),
    (StopReason.unused, unused),
    (StopReason.plan_exhausted, plan_exhausted),
)


def first_passed(settings: ControllerSettings, tick: Tick) -> Passed | None:
    """The first limit in the order of WATCHDOGS that was passed; None while all hold."""
    for reason, watchdog in WATCHDOGS:
        passed_s = watchdog(settings, tick)
        if passed_s is not None:
            return Passed(reason, min(passed_s, tick.now.steady_s))
    return None


def is_stale(input_ns: int | None, now_ns: int, max_image_age_s: float) -> bool:
    """Whether an observation's stamp is too old.

    One from the future is as bad: it would look fresh for too long.
    """
    return input_ns is None or abs(now_ns - input_ns) * 1e-9 > max_image_age_s


def _leads(command: Setpoint, measured: Setpoint, settings: ControllerSettings) -> bool:
    """Whether the command is too far from the measured state, along one axis or by its turn."""
    if np.abs(command.linear - measured.linear).max() > settings.max_linear_lead:
        return True
    if command.quaternion_xyzw is None or measured.quaternion_xyzw is None:
        return False
    lead_rad = np.linalg.norm(rotation.between(measured.quaternion_xyzw, command.quaternion_xyzw))
    return bool(lead_rad > settings.max_angular_lead_rad)
