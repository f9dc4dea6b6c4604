"""An episode with a policy that the test plays, without ROS: what faults and silence do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qvla_ros.nodes.libero_bridge.episode_run import LostInEpisode, RealTimeRun
from qvla_ros.nodes.libero_bridge.policy_link import PolicyAnswer, PolicyDisarmed, PolicyLost
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.faults import Sensed, parse_faults
from qvla_ros.simulation.real_time import MEASURED, Conditions

STEPS = 16
CHUNK_S = 0.4


class Clock:
    def __init__(self) -> None:
        self.now_ns = 10**9
        self.published = 0

    def advance(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds

    def publish(self) -> None:
        self.published += 1


class Link:
    """A policy that stays where it is; `answer(sensed)` may say otherwise."""

    namespace = "x"

    def __init__(
        self, clock: Clock, answer: Callable[[Sensed], PolicyAnswer | None] | None = None
    ) -> None:
        self._clock = clock
        self._answer = answer
        self.armed: list[bool] = []

    def publish_instruction(self, instruction: str) -> None: ...

    def arm(self, armed: bool) -> None:
        self.armed.append(armed)

    def now_ns(self) -> int:
        return 7_000_000

    def request(self, sensed: Sensed, instruction: str, timeout_s: float) -> PolicyAnswer | None:
        return self._answer(sensed) if self._answer is not None else self.stay()

    offer = request

    def stay(self, computing_s: float = 0.01) -> PolicyAnswer:
        return PolicyAnswer(np.zeros((8, 7)), 2_000_000, 1.0, self._clock.now_ns, computing_s)

    def disarm_if_it_listens(self) -> None:
        self.armed.append(False)


def episode(
    link: Any, clock: Clock, latency_s: float = 0.0, faults: tuple[str, ...] = ()
) -> RealTimeRun:
    conditions = Conditions(latency_s, "skip", 0, CHUNK_S)
    task = FakeTask("fake", 0, 16, STEPS)
    parsed = parse_faults(faults)
    return RealTimeRun(task, link, 1.0, False, conditions, parsed, clock)  # type: ignore[arg-type]


def test_an_episode_takes_the_time_of_settling_and_of_its_steps() -> None:
    clock = Clock()
    run = episode(Link(clock), clock)
    seen: list[int] = []
    run.run(0, 0, seen.append)
    assert seen == [8, 16]
    assert clock.now_ns == 10**9 + (10 + STEPS) * 50_000_000
    assert (run.reason, run.rollout.steps) == ("step limit", STEPS)
    assert run.measurements.stamp_to_command_ms == [5.0, 5.0]
    assert run.measurements.real_time["faults"] == {}


def test_a_policy_that_disarms_after_a_fault_ends_its_episode_with_the_arm_held() -> None:
    clock = Clock()

    def disarms_when_blind(sensed: Sensed) -> PolicyAnswer:
        if sensed.faults:
            raise PolicyDisarmed("its camera is gone")
        return link.stay()

    link = Link(clock, disarms_when_blind)
    run = episode(link, clock, faults=("drop_camera@0.4",))
    run.run(0, 0, lambda step: None)
    assert run.reason == "disarmed after drop_camera"
    assert not run.rollout.success
    assert run.rollout.steps == 8
    assert link.armed == [True, False]
    assert run.measurements.real_time["faults"] == {"drop_camera": 1}


@pytest.mark.parametrize("lost", [PolicyDisarmed("by hand"), PolicyLost("gone")])
def test_a_policy_that_is_lost_for_another_reason_ends_the_run(lost: PolicyLost) -> None:
    clock = Clock()

    def lose(sensed: Sensed) -> PolicyAnswer:
        raise lost

    with pytest.raises(LostInEpisode) as caught:
        episode(Link(clock, lose), clock, faults=("drop_camera@9",)).run(0, 0, lambda step: None)
    assert caught.value.hold.at_rest


def test_a_measured_latency_needs_a_chunk_that_says_it() -> None:
    clock = Clock()
    link = Link(clock)
    run = episode(link, clock, MEASURED)
    run.run(0, 0, lambda step: None)
    assert run.measurements.real_time["latency_s"] == pytest.approx(0.01)
    silent = Link(clock, lambda sensed: link.stay(float("nan")))
    with pytest.raises(LostInEpisode, match="or give the bridge latencies_s"):
        episode(silent, clock, MEASURED).run(0, 0, lambda step: None)
