"""Runs one episode of the LIBERO bridge: arms the policy, publishes observations, executes chunks.

In lock-step the simulation stands still while the policy computes; in real time the arm goes on
meanwhile, see qvla_ros.simulation.real_time. When a policy is lost, the arm is held still.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qvla_ros.nodes.libero_bridge.policy_link import (
    PolicyAnswer,
    PolicyDisarmed,
    PolicyLink,
    PolicyLost,
)
from qvla_ros.nodes.libero_bridge.simulated_clock import SimulatedClock
from qvla_ros.nodes.process import ignore_signals
from qvla_ros.simulation.faults import Fault, FaultInjector, Sensed
from qvla_ros.simulation.libero import SETTLE_STEPS, LiberoObservation
from qvla_ros.simulation.real_time import MEASURED, PERIOD_NS, Conditions, LateChunk, RealTimeArm
from qvla_ros.simulation.rollout import Hold, Rollout, SimulatedTask, execute, hold_still
from qvla_ros.simulation.video import side_by_side

# How long to wait, wall time, for an answer to an observation that deserves none: long enough to
# catch a policy that acts on it.
FAULT_PATIENCE_S = 1.0


@dataclass
class Measurements:
    """The measurements of an episode.

    inference_ms, stamp_to_command_ms: one number a chunk. frames: those that the policy read, if it
    is filmed. real_time: the counts of real time, empty in lock-step.
    """

    inference_ms: list[float] = field(default_factory=list)
    stamp_to_command_ms: list[float] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    real_time: dict[str, Any] = field(default_factory=dict)


class LostInEpisode(PolicyLost):
    """A policy was lost during an episode. hold: how the arm came to rest."""

    def __init__(self, reason: PolicyLost, hold: Hold) -> None:
        super().__init__(f"{reason} {hold}")
        self.hold = hold


class EpisodeRun:
    """One episode in lock-step; after `run()`, rollout, measurements and reason describe it."""

    def __init__(
        self, task: SimulatedTask, link: PolicyLink, response_timeout_s: float, filmed: bool
    ) -> None:
        self._task = task
        self._link = link
        self._filmed = filmed
        self._response_timeout_s = response_timeout_s
        self.rollout = Rollout()
        self.measurements = Measurements()
        self.reason = ""

    def run(self, init_state: int, seed: int, on_step: Callable[[int], None]) -> None:
        """Runs the episode; on_step gets the number of steps after each chunk.

        PolicyLost before anything moves, LostInEpisode after. Whatever ends the episode, the policy
        is asked to disarm.
        """
        task = self._task
        link = self._link
        rollout = self.rollout
        observation = self._reset(init_state, seed)
        link.publish_instruction(task.instruction)
        try:
            link.arm(True)
            while not rollout.success and rollout.steps < task.max_steps:
                observation = self._one_inference(observation)
                on_step(rollout.steps)
            link.arm(False)
        except PolicyLost as lost:
            hold = hold_still(task, rollout, observation)
            if not self._may_end_with(lost):
                raise LostInEpisode(lost, hold) from None
        except BaseException:
            ignore_signals()  # the process is about to end, a second or two from now
            with suppress(Exception):
                # In the middle of a chunk: one step without motion shows where the arm is.
                stay = np.concatenate([np.zeros(6), rollout.last_action[6:]])
                hold_still(task, rollout, task.step(stay, render=False)[0])
            raise
        finally:
            with suppress(Exception):  # it must not hide an earlier error
                link.disarm_if_it_listens()
        self.reason = self.reason or ("success" if rollout.success else "step limit")

    def _reset(self, init_state: int, seed: int) -> LiberoObservation:
        return self._task.reset(init_state, seed)

    def _one_inference(self, observation: LiberoObservation) -> LiberoObservation:
        """Sends the observation, executes the chunk, and returns the next observation."""
        self._film(observation)
        answer = self._link.request(
            Sensed(observation, {}), self._task.instruction, self._response_timeout_s
        )
        self._note(answer)
        return execute(self._task, self.rollout, observation, answer.actions)

    def _may_end_with(self, lost: PolicyLost) -> bool:
        """Whether the episode may end with the loss of the policy, instead of the whole run."""
        return False

    def _film(self, observation: LiberoObservation) -> None:
        if self._filmed:
            self.measurements.frames.append(side_by_side(observation.images))

    def _note(self, answer: PolicyAnswer) -> None:
        self.measurements.inference_ms.append(answer.inference_ms)
        self.measurements.stamp_to_command_ms.append(
            1e-6 * (self._link.now_ns() - answer.published_ns)
        )


class RealTimeRun(EpisodeRun):
    """One episode in real time: time goes on while the policy computes, and sensors may fail."""

    def __init__(
        self,
        task: SimulatedTask,
        link: PolicyLink,
        response_timeout_s: float,
        filmed: bool,
        conditions: Conditions,
        faults: Sequence[Fault],
        clock: SimulatedClock,
    ) -> None:
        super().__init__(task, link, response_timeout_s, filmed)
        self._conditions = conditions
        self._clock = clock
        self._began_ns = clock.now_ns
        self._sensors = FaultInjector(faults)
        self._arm = RealTimeArm(task, self.rollout, conditions, clock, self._after_step)

    def run(self, init_state: int, seed: int, on_step: Callable[[int], None]) -> None:
        super().run(init_state, seed, on_step)
        self.measurements.real_time = {
            **self._arm.counts.summary(),
            "faults": dict(self._sensors.counts),
        }

    def _reset(self, init_state: int, seed: int) -> LiberoObservation:
        observation = super()._reset(init_state, seed)
        self._clock.advance(SETTLE_STEPS * PERIOD_NS)  # while the objects fell into place
        self._began_ns = self._clock.now_ns
        return observation

    def _one_inference(self, observation: LiberoObservation) -> LiberoObservation:
        self._film(observation)
        sensed = self._sensors.sense(observation, self._time_ns())
        answer = self._ask(sensed)
        if answer is None:
            return self._arm.go_on(observation, None)
        self._note(answer)
        return self._arm.go_on(
            observation, LateChunk(answer.actions, answer.stamp_ns, self._latency_s(answer))
        )

    def _ask(self, sensed: Sensed) -> PolicyAnswer | None:
        self._clock.publish()
        if sensed.answerable:
            return self._link.request(sensed, self._task.instruction, self._response_timeout_s)
        return self._link.offer(sensed, self._task.instruction, FAULT_PATIENCE_S)

    def _latency_s(self, answer: PolicyAnswer) -> float:
        if self._conditions.latency_s != MEASURED:
            return self._conditions.latency_s
        if not np.isfinite(answer.computing_s):
            raise PolicyLost(
                f"policy {self._link.namespace!r}: its chunk does not say how long it "
                "took. Fix: let it fill in "
                "latency_ms (see msg/ActionChunk.msg), or give the bridge latencies_s."
            )
        return answer.computing_s

    def _after_step(self) -> None:
        if self._sensors.kills_at(self._time_ns()):
            os.kill(os.getpid(), signal.SIGKILL)

    def _may_end_with(self, lost: PolicyLost) -> bool:
        """True if the policy disarmed itself after a fault of its sensors, as it should."""
        if isinstance(lost, PolicyDisarmed) and self._sensors.counts:
            self.reason = "disarmed after " + ", ".join(self._sensors.counts)
        return bool(self.reason)

    def _time_ns(self) -> int:
        return self._clock.now_ns - self._began_ns
