"""An end effector that is sent velocities by the real Controller, and is late. Pure.

Its velocity follows the one it is sent with a first-order lag, its pose is measured some time after
it was so, and it may move too fast, the other way or not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk

Array = NDArray[np.float64]
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])
LOW = np.array([-0.6, -0.75, 0.02])
HIGH = np.array([0.6, 0.75, 0.6])
START = np.array([0.3, 0.0, 0.25])
STEP_DT_S = 0.1
CHUNK = 8
REPLANNING_S = 0.1
SUBSTEPS = 5
NEVER_S = 1e3


@dataclass(frozen=True)
class LateArm:
    """delay_s: from where it is to when that is measured. lag_s: time constant of its velocity.
    gain: of its velocity; 1 follows, 0 stands still, -1 goes the other way.
    """

    delay_s: float = 0.0
    lag_s: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True)
class Limits:
    """m/s, m/s^2, and how late the arm is taken to be, s."""

    max_velocity: float = 0.25
    max_acceleration: float = 1.0
    reaction_time_s: float = 0.2
    control_hz: float = 50.0

    def controller(self) -> Controller:
        settings = ControllerSettings(
            1.0 / self.control_hz,
            max_image_age_s=NEVER_S,
            inference_timeout_s=NEVER_S,
            max_command_age_s=NEVER_S,
            stop="zero",
            measured_velocity_margin=math.inf,
            follow_measured=True,
            reaction_time_s=self.reaction_time_s,
        )
        limits = motion_limits(
            3,
            LOW,
            HIGH,
            max_linear_velocity=self.max_velocity,
            max_linear_acceleration=self.max_acceleration,
            max_angular_velocity_rad_s=0.8,
            max_angular_acceleration_rad_s2=4.0,
        )
        return Controller(settings, MotionSpec("delta_end_effector_pose", 1.0, 1.0, None), limits)


@dataclass(frozen=True)
class Driven:
    """positions [N, 3], SUBSTEPS a period, m. stop: why it was stopped; stopped_s: when."""

    positions: Array
    period_s: float
    stop: StopReason | None
    stopped_s: float

    @property
    def beyond_m(self) -> float:
        """How far it was outside the box."""
        return float(np.maximum(LOW - self.positions, self.positions - HIGH).max())

    def swing_m(self, seconds: float) -> float:
        """How far it went to and fro at the end, along any axis."""
        count = round(seconds * SUBSTEPS / self.period_s)
        return float(np.ptp(self.positions[-count:], axis=0).max())


def push(direction: Array) -> Array:
    """A plan [8, 6] that goes on in one direction, for ever at full speed."""
    return np.tile(np.concatenate([0.1 * direction, np.zeros(3)]), (CHUNK, 1))


def wander(rng: np.random.Generator) -> Array:
    """A plan [8, 6] of any motion, as fast as a policy moves."""
    speeds = np.cumsum(rng.normal(0.0, 0.3, (CHUNK, 6)), axis=0) + rng.normal(0.0, 0.7, 6)
    return STEP_DT_S * np.clip(speeds, -1.0, 1.0) * np.array([0.2, 0.2, 0.2, 0.5, 0.5, 0.5])


class _Arm:
    """The arm as it moves: its pose and velocity [6], and where it has been."""

    def __init__(self, kind: LateArm, period_s: float) -> None:
        self._kind = kind
        self._step_s = period_s / SUBSTEPS
        self._left = math.exp(-self._step_s / kind.lag_s) if kind.lag_s > 0.0 else 0.0
        self._velocity = np.zeros(6)
        self._trail = [(START, UPRIGHT)]

    def move(self, sent: Array) -> None:
        """A period of one velocity."""
        for _ in range(SUBSTEPS):
            aim = self._kind.gain * sent
            lacks = self._velocity - aim
            way = self._step_s * aim + self._kind.lag_s * (1.0 - self._left) * lacks
            self._velocity = aim + self._left * lacks
            position, quaternion = self._trail[-1]
            self._trail.append((position + way[:3], rotation.turn(quaternion, way[3:])))

    def measured(self) -> Setpoint:
        """Where it was `delay_s` ago."""
        late = self._kind.delay_s / self._step_s
        whole = int(late)
        last = len(self._trail) - 1
        newer = self._trail[max(last - whole, 0)]
        older = self._trail[max(last - whole - 1, 0)]
        position = newer[0] + (late - whole) * (older[0] - newer[0])
        return Setpoint(position, rotation.slerp(newer[1], older[1], late - whole))

    def positions(self) -> Array:
        return np.array([position for position, _ in self._trail])


def drive(
    kind: LateArm, limits: Limits, duration_s: float, aim: Array | np.random.Generator
) -> Driven:
    """aim: the direction that every plan pushes to, or what random plans are drawn by."""
    period_s = 1.0 / limits.control_hz
    controller = limits.controller()
    arm = _Arm(kind, period_s)
    controller.feed_input(_ns(0.0))
    for seen_s in (-2.0 * REST_S, 0.0):
        controller.tick(_ns(seen_s), seen_s, arm.measured())
    controller.arm(arm.measured(), _ns(0.0))
    replanning = round(REPLANNING_S * limits.control_hz)
    sent = np.zeros(6)
    for number in range(1, round(duration_s * limits.control_hz)):
        now_s = number * period_s
        arm.move(sent)
        controller.feed_input(_ns(now_s))
        if number % replanning == 1:
            plan = wander(aim) if isinstance(aim, np.random.Generator) else push(aim)
            controller.set_chunk(PlannedChunk(_ns(now_s), STEP_DT_S, plan), _ns(now_s))
        decision = controller.tick(_ns(now_s), now_s, arm.measured())
        if decision.stop is not None:
            return Driven(arm.positions(), period_s, decision.stop, now_s)
        if decision.motion is not None:
            motion = decision.motion
            sent = np.concatenate([motion.linear_velocity, motion.angular_velocity_rad_s])
    return Driven(arm.positions(), period_s, None, math.inf)


def _ns(seconds: float) -> int:
    return round(1e9 * seconds) + 10**15
