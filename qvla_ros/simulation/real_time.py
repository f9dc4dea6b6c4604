"""Real time on the simulated clock: time goes on while the policy computes, and chunks come late.

A chunk computed from the image of time t takes effect at t + latency; until then the arm goes on
with the chunk it has. The latency is given ("what if this ran on an Orin?") or that which the chunk
reports. Simulated time stands still until the chunk has come, so that an episode does not depend on
the speed of the machine that simulates it.

A control step is 50 ms long: what takes effect within one acts from the next. Imports no ROS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from qvla_ros.actions import Actions, libero_action
from qvla_ros.control.setpoint import MotionSpec
from qvla_ros.control.timeline import ChunkTimeline, PlannedChunk
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.rollout import Rollout, SimulatedTask, hold_action
from qvla_ros.simulation.specification import (
    CONTROL_PERIOD_S,
    GRIPPER_INDEX,
    METRES_PER_UNIT,
    RADIANS_PER_UNIT,
)

PERIOD_NS = round(CONTROL_PERIOD_S * 1e9)
MEASURED = -1.0  # as latency_s: the computing time that each chunk reports
MAX_LATENCY_S = 60.0
MOTION = MotionSpec("delta_end_effector_pose", METRES_PER_UNIT, RADIANS_PER_UNIT, GRIPPER_INDEX)
HANDOVERS = {
    "skip": "a chunk enters at the action that is meant for now; those before are skipped",
    "restart": "a chunk enters at its first action, however late it comes",
    "wait": "the arm holds still while the policy computes, then executes the whole chunk",
}


@dataclass(frozen=True)
class Conditions:
    """The conditions under which an episode runs in real time.

    latency_s: from image to effect, or MEASURED. handover: one of HANDOVERS. blend_steps: over how
    many steps a chunk takes over from the one before. observation_period_s: the policy gets its
    next image when its chunk has taken effect, but not sooner than this after the image before; 0:
    the newest as soon as the policy is free. (With "wait": when the chunk has been executed.)
    """

    latency_s: float
    handover: str
    blend_steps: int
    observation_period_s: float

    def __post_init__(self) -> None:
        if self.handover not in HANDOVERS:
            raise QvlaError(
                "handover", self.handover, f"one of {', '.join(HANDOVERS)}", "choose one of these"
            )
        if self.latency_s != MEASURED and not 0 <= self.latency_s <= MAX_LATENCY_S:
            expected = f"{MEASURED:g} (as measured) or 0 to {MAX_LATENCY_S:g} s"
            raise QvlaError("latency_s", self.latency_s, expected, "give a latency in seconds")

    @property
    def label(self) -> str:
        latency = "measured" if self.latency_s == MEASURED else f"{1e3 * self.latency_s:g} ms"
        return f"{self.handover} {latency}"


@dataclass(frozen=True)
class LateChunk:
    """A chunk that takes effect `latency_s` after its image was taken.

    actions: float64 [K, 7] in the units of the specification. stamp_ns: when the image was taken,
    simulated time.
    """

    actions: Actions
    stamp_ns: int
    latency_s: float


@dataclass
class EpisodeCounts:
    """Counts of one episode. The field names are those of the episode's record.

    looks: observations sent to the policy. unanswered: those without a chunk, see
    qvla_ros.simulation.faults. hold_steps: without an action to execute. skipped_actions: those
    whose time had passed when their chunk took effect. latency_s: the sum over chunks.
    """

    looks: int = 0
    chunks: int = 0
    unanswered: int = 0
    hold_steps: int = 0
    skipped_actions: int = 0
    latency_s: float = 0.0

    def summary(self) -> dict[str, float]:
        """Fields of an episode's record; latency_s is the mean over chunks, NaN without any."""
        return {
            **asdict(self),
            "latency_s": self.latency_s / self.chunks if self.chunks else math.nan,
        }


class Clock(Protocol):
    """Simulated time: only the arm moves it on."""

    @property
    def now_ns(self) -> int: ...
    def advance(self, nanoseconds: int) -> None: ...


class RealTimeArm:
    """Moves a simulated arm through one episode in which time goes on while the policy computes.

    after_step: called after every step.
    """

    def __init__(
        self,
        task: SimulatedTask,
        rollout: Rollout,
        conditions: Conditions,
        clock: Clock,
        after_step: Callable[[], None],
    ) -> None:
        self._task = task
        self._rollout = rollout
        self._conditions = conditions
        self._clock = clock
        self._after_step = after_step
        self._timeline = ChunkTimeline(conditions.blend_steps, MOTION)
        self._stay_m: np.ndarray | None = None
        self.counts = EpisodeCounts()

    def go_on(self, observation: LiberoObservation, chunk: LateChunk | None) -> LiberoObservation:
        """Simulates until the policy's next observation, renders and returns it.

        observation: that of now. chunk: the policy's answer to it, None without one. Ends early
        with the episode.
        """
        self._count(chunk)
        left = self._task.max_steps - self._rollout.steps
        steps = min(self._steps_to_next_observation(chunk), left)
        effect_steps = 0 if chunk is None else _steps(chunk.latency_s)
        for step in range(steps):
            if chunk is not None and step == effect_steps:
                self._take_over(chunk)
            observation = self._step(observation, render=step == steps - 1)
            if self._rollout.success:
                return observation
        if chunk is not None and steps == effect_steps:
            self._take_over(chunk)
        return observation

    def _steps_to_next_observation(self, chunk: LateChunk | None) -> int:
        shortest = max(1, _steps(self._conditions.observation_period_s))
        if chunk is None:
            return shortest
        if self._conditions.handover == "wait":
            return _steps(chunk.latency_s) + len(chunk.actions)
        return max(shortest, _steps(chunk.latency_s))

    def _take_over(self, chunk: LateChunk) -> None:
        now_ns = self._clock.now_ns
        stamp_ns = chunk.stamp_ns if self._conditions.handover == "skip" else now_ns
        planned = PlannedChunk(stamp_ns, CONTROL_PERIOD_S, chunk.actions)
        skipped = self._timeline.add(planned, now_ns)
        self.counts.skipped_actions += len(chunk.actions) if skipped is None else skipped

    def _step(self, observation: LiberoObservation, render: bool) -> LiberoObservation:
        rollout = self._rollout
        action = self._timeline.at(self._clock.now_ns)
        if action is None:
            self._stay_m = observation.eef_position_m if self._stay_m is None else self._stay_m
            command = hold_action(self._stay_m, observation.eef_position_m, rollout.last_action)
            self.counts.hold_steps += 1
        else:
            self._stay_m = None
            command = libero_action(action)
        rollout.last_action = command
        rollout.commanded_m.append(observation.eef_position_m + METRES_PER_UNIT * command[:3])
        observation, rollout.success = self._task.step(command, render)
        rollout.steps += 1
        self._clock.advance(PERIOD_NS)
        self._after_step()
        return observation

    def _count(self, chunk: LateChunk | None) -> None:
        self.counts.looks += 1
        if chunk is None:
            self.counts.unanswered += 1
        else:
            self.counts.chunks += 1
            self.counts.latency_s += chunk.latency_s


def _steps(duration_s: float) -> int:
    """Whole control periods until a duration has passed.

    A rounding error of less than a nanosecond adds none.
    """
    return -(-(round(duration_s * 1e9)) // PERIOD_NS)


@dataclass(frozen=True)
class RealTime:
    """The conditions of a whole run: every handover with every latency.

    faults: in their written form, see qvla_ros.simulation.faults.
    """

    latencies_s: tuple[float, ...] = (MEASURED,)
    handovers: tuple[str, ...] = ("skip",)
    blend_steps: int = 0
    observation_period_s: float = 0.0
    faults: tuple[str, ...] = ()

    def conditions(self) -> tuple[Conditions, ...]:
        """The conditions in the order in which each initial state is run."""
        return tuple(
            Conditions(latency_s, handover, self.blend_steps, self.observation_period_s)
            for latency_s in self.latencies_s
            for handover in self.handovers
        )

    def parameters(self) -> dict[str, object]:
        """Parameters of the bridge. Empty lists are left out, since ROS cannot infer their type."""
        lists: dict[str, Sequence[object]] = {
            "latencies_s": [float(value) for value in self.latencies_s],
            "handovers": list(self.handovers),
            "faults": list(self.faults),
        }
        numbers = {
            "blend_steps": self.blend_steps,
            "observation_period_s": float(self.observation_period_s),
        }
        return {
            "timing": "real_time",
            **{name: value for name, value in lists.items() if value},
            **numbers,
        }
