"""Joints driven through joint_trajectory_controller by a policy node on a busy machine. Pure.

The real Controller is ticked at the times of a machine whose process is held up again and again;
its messages are delayed on their way, and may end in the middle of a motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control.controller import Controller
from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.testing.trajectory_controller import TrajectoryController, TrajectoryMessage

Array = NDArray[np.float64]
UPDATE_S = 0.001
STEP_DT_S = 0.05
CHUNK = 8
INFERENCE_S = 0.08
CLOCK_S = 1000.0  # of the robot, when the drive begins
NEVER_S = 1e3


@dataclass(frozen=True)
class Load:
    """How a process is held up: how often a second and for how long on average, s; how long a
    message takes on average, s; and how often the process that receives them is held up, as long.
    """

    stalls_per_s: float = 3.0
    stall_s: float = 0.05
    transport_s: float = 0.001
    receiver_stalls_per_s: float = 0.0

    def tick_times_s(self, rng: np.random.Generator, duration_s: float, period_s: float) -> Array:
        """When the ticks of a ControlLoop run: late in a stall, and skipped when they are late by
        a period.
        """
        stalls = _Stalls(rng, self.stalls_per_s, self.stall_s, duration_s)
        times_s: list[float] = []
        deadline_s = 0.0
        while deadline_s < duration_s:
            runs_s = stalls.end_s(deadline_s + rng.exponential(3e-4))
            times_s.append(runs_s)
            missed = math.floor(runs_s / period_s - deadline_s / period_s)
            deadline_s += period_s * (1 + max(0, missed))
        return np.array(times_s)


class _Stalls:
    """When a process is held up. Times from 0 on."""

    def __init__(
        self, rng: np.random.Generator, per_s: float, mean_s: float, duration_s: float
    ) -> None:
        count = int(2.0 * per_s * duration_s) + 10 if per_s > 0.0 else 0
        self._begins_s = np.cumsum(rng.exponential(1.0 / max(per_s, 1e-9), count))
        self._ends_s = self._begins_s + rng.gamma(2.0, 0.5 * mean_s, count)

    def end_s(self, at_s: float) -> float:
        """When what is due then is done."""
        stall = int(np.searchsorted(self._begins_s, at_s)) - 1
        return at_s if stall < 0 else max(at_s, float(self._ends_s[stall]))


@dataclass(frozen=True)
class Joints:
    """Limits of every joint, rad, rad/s and rad/s^2, and how they are commanded.

    single_points: one point without velocity a period ahead, "at once", as many nodes send.
    with_velocities, look_ahead_s: as in CommandForm.
    """

    count: int = 7
    range_rad: float = 1.0
    max_velocity: float = 0.5
    max_acceleration: float = 2.0
    period_s: float = 0.01
    look_ahead_s: float = 0.06
    with_velocities: bool = True
    single_points: bool = False

    def controller(self) -> Controller:
        settings = ControllerSettings(
            self.period_s,
            max_image_age_s=NEVER_S,
            inference_timeout_s=NEVER_S,
            max_command_age_s=NEVER_S,
            look_ahead_s=0.0 if self.single_points else self.look_ahead_s,
            even_tail=not self.with_velocities,
        )
        limits = motion_limits(
            self.count,
            -self.range_rad,
            self.range_rad,
            max_linear_velocity=self.max_velocity,
            max_linear_acceleration=self.max_acceleration,
        )
        return Controller(settings, MotionSpec("joint_position", 1.0, 1.0, None), limits)

    def message(self, decision: Decision, now_s: float) -> TrajectoryMessage | None:
        """What is sent of a decision."""
        if self.single_points and decision.command is not None:
            return TrajectoryMessage(0.0, np.array([self.period_s]), decision.command.linear[None])
        sent = decision.trajectory
        if sent is None:
            return None
        velocities = sent.velocities if self.with_velocities else None
        begin_s = now_s + sent.times_s[0]
        return TrajectoryMessage(
            begin_s, sent.times_s - sent.times_s[0], sent.positions, velocities
        )


@dataclass(frozen=True)
class Drive:
    """gaps_s: between ticks. positions [N, n]: what the controller commanded, every UPDATE_S, and
    the first and second differences of that. rejected: messages that the controller refused.
    """

    gaps_s: Array
    positions: Array
    rejected: list[str]

    @property
    def velocities(self) -> Array:
        return np.diff(self.positions, axis=0) / UPDATE_S

    @property
    def accelerations(self) -> Array:
        return np.diff(self.velocities, axis=0) / UPDATE_S


def drive(
    joints: Joints,
    load: Load,
    duration_s: float,
    seed: int = 0,
    dies_s: float = math.inf,
    from_desired: bool = False,
) -> Drive:
    """dies_s: when the node is killed; nothing is sent from then on. from_desired: the controller's
    parameter interpolate_from_desired_state.
    """
    rng = np.random.default_rng(seed)
    ticks_s = load.tick_times_s(rng, duration_s, joints.period_s)
    ticks_s = CLOCK_S + ticks_s[ticks_s <= dies_s]
    messages = _messages(joints, load, ticks_s, rng)
    receiver = _Stalls(rng, load.receiver_stalls_per_s, load.stall_s, duration_s)
    arm = TrajectoryController(np.zeros(joints.count), UPDATE_S, from_desired)
    positions = []
    newest = None
    for now_s in CLOCK_S + UPDATE_S * np.arange(round(duration_s / UPDATE_S)):
        while messages and messages[0][0] <= now_s:
            newest = messages.pop(0)[1]
        is_at_work = receiver.end_s(now_s - CLOCK_S) <= now_s - CLOCK_S
        if newest is not None and is_at_work:
            arm.receive(newest, now_s)
            newest = None
        positions.append(arm.update(now_s))
    return Drive(np.diff(ticks_s), np.array(positions), arm.rejected)


def _messages(
    joints: Joints, load: Load, ticks_s: Array, rng: np.random.Generator
) -> list[tuple[float, TrajectoryMessage]]:
    """All messages with the times of their arrival, in order."""
    controller = joints.controller()
    rest = Setpoint(np.zeros(joints.count))
    begin_s = float(ticks_s[0])
    controller.feed_input(_ns(begin_s))
    for seen_s in (begin_s - 2.0 * REST_S, begin_s):
        controller.tick(_ns(seen_s), seen_s, rest)
    controller.arm(rest, _ns(begin_s))
    policy = _Policy(joints, rng)
    messages = []
    arrived_s = begin_s
    for now_s in ticks_s.tolist():
        controller.feed_input(_ns(now_s))
        chunk = policy.chunk(now_s)
        if chunk is not None:
            controller.set_chunk(chunk, _ns(now_s))
        message = joints.message(controller.tick(_ns(now_s), now_s, rest), now_s)
        arrived_s = max(arrived_s, now_s + rng.exponential(load.transport_s))
        if message is not None:
            messages.append((arrived_s, message))
    return messages


class _Policy:
    """Sways the joints by half their range, with noise from one chunk to the next."""

    def __init__(self, joints: Joints, rng: np.random.Generator) -> None:
        self._joints = joints
        self._rng = rng
        self._phase = rng.uniform(0.0, 2.0 * np.pi, joints.count)
        self._pulse = rng.uniform(0.5, 2.0, joints.count)
        self._due_s = 0.0

    def chunk(self, now_s: float) -> PlannedChunk | None:
        if now_s < self._due_s:
            return None
        self._due_s = now_s + 0.5 * CHUNK * STEP_DT_S
        seen_s = now_s - INFERENCE_S
        times_s = seen_s + STEP_DT_S * np.arange(1, CHUNK + 1)
        swaying = np.sin(np.outer(times_s, self._pulse) + self._phase)
        noise = self._rng.normal(0.0, 0.02, self._joints.count)
        actions = 0.5 * self._joints.range_rad * swaying + noise
        return PlannedChunk(_ns(seen_s), STEP_DT_S, actions)


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
