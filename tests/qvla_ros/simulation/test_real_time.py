"""Time goes on while the policy computes: what each late chunk does, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.real_time import (
    HANDOVERS,
    MEASURED,
    PERIOD_NS,
    Conditions,
    LateChunk,
    RealTime,
    RealTimeArm,
)
from qvla_ros.simulation.rollout import Rollout, execute

CHUNK = 8
START_NS = 123_456_789


class Clock:
    now_ns = START_NS

    def advance(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds


class Recording(FakeTask):
    """Keeps the actions that it executed, and the steps at which it was drawn."""

    def __init__(self, max_steps: int = 40) -> None:
        super().__init__("fake", 0, 16, max_steps)
        self.executed: list[np.ndarray] = []
        self.drawn: list[int] = []

    def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
        self.executed.append(action)
        if render:
            self.drawn.append(len(self.executed))
        return super().step(action, render)


def chunk_of(inference: int) -> np.ndarray:
    """A chunk [8, 7]; column 3 (a rotation, which the fake ignores) is inference + index / 10."""
    actions = np.zeros((CHUNK, 7))
    actions[:, 3] = inference + np.arange(CHUNK) / 10
    return actions


def run(
    latency_s: float,
    handover: str = "skip",
    period_s: float = 0.0,
    blend_steps: int = 0,
    steps: int = 24,
) -> tuple[Recording, RealTimeArm]:
    """`steps` steps of an arm whose policy answers every observation with the next chunk.

    Inferences count from 1.
    """
    task = Recording(steps)
    clock = Clock()
    rollout = Rollout()
    conditions = Conditions(latency_s, handover, blend_steps, period_s)
    arm = RealTimeArm(task, rollout, conditions, clock, lambda: None)
    observation = task.reset(0)
    while rollout.steps < steps:
        chunk = LateChunk(chunk_of(arm.counts.looks + 1), clock.now_ns, latency_s)
        observation = arm.go_on(observation, chunk)
    assert clock.now_ns == START_NS + steps * PERIOD_NS
    return task, arm


def executed(task: Recording) -> list[float]:
    """inference + index / 10 of every step, 0 where the arm held."""
    return [round(float(action[3]), 6) for action in task.executed]


def test_without_latency_every_step_follows_the_newest_image() -> None:
    task, arm = run(0.0, steps=4)
    assert executed(task) == [1.0, 2.0, 3.0, 4.0]
    assert task.drawn == [1, 2, 3, 4]
    assert (arm.counts.looks, arm.counts.hold_steps, arm.counts.skipped_actions) == (4, 0, 0)


def test_the_old_chunk_goes_on_until_the_new_one_takes_effect_at_the_action_meant_for_then() -> (
    None
):
    task, arm = run(0.1, steps=8)
    assert executed(task) == [0, 0, 1.2, 1.3, 2.2, 2.3, 3.2, 3.3]
    assert task.drawn == [2, 4, 6, 8]
    assert (arm.counts.hold_steps, arm.counts.skipped_actions) == (2, 8)


def test_a_latency_within_a_step_acts_from_the_next_step_on() -> None:
    task, _ = run(0.03, steps=4)
    assert executed(task) == [0, 1.1, 2.1, 3.1]


def test_a_policy_that_looks_seldom_is_followed_to_the_next_chunk() -> None:
    task, _ = run(0.1, period_s=0.2, steps=10)
    assert executed(task) == [0, 0, 1.2, 1.3, 1.4, 1.5, 2.2, 2.3, 2.4, 2.5]


def test_restarting_executes_each_chunk_from_its_first_action() -> None:
    task, arm = run(0.1, "restart", period_s=0.2, steps=10)
    assert executed(task) == [0, 0, 1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2, 2.3]
    assert arm.counts.skipped_actions == 0


def test_waiting_holds_while_the_policy_thinks_and_executes_whole_chunks() -> None:
    task, arm = run(0.1, "wait", steps=20)
    whole = [[inference + index / 10 for index in range(CHUNK)] for inference in (1, 2)]
    assert executed(task) == [0, 0, *whole[0], 0, 0, *whole[1]]
    assert arm.counts.looks == 2


def test_a_latency_of_a_whole_chunk_leaves_nothing_to_execute_when_the_past_is_skipped() -> None:
    task, arm = run(CHUNK * 0.05)
    assert not any(executed(task))
    assert arm.counts.hold_steps == len(task.executed)
    # the last one took effect at the very end
    assert arm.counts.skipped_actions == CHUNK * arm.counts.looks


def test_blending_moves_over_step_by_step() -> None:
    task, _ = run(0.0, period_s=0.2, blend_steps=1, steps=8)
    halfway = (1.4 + 2.0) / 2
    assert executed(task) == [1.0, 1.1, 1.2, 1.3, halfway, 2.1, 2.2, 2.3]


def test_time_that_does_not_pass_is_lock_step() -> None:
    rng = np.random.default_rng(0)
    chunks = [
        np.concatenate([rng.uniform(-0.1, 0.1, (CHUNK, 6)), rng.uniform(0, 1, (CHUNK, 1))], 1)
        for _ in range(3)
    ]
    still = Recording(20)
    going = Recording(20)
    rollout = Rollout()
    observation = still.reset(0)
    for chunk in chunks:
        observation = execute(still, rollout, observation, chunk)
    clock = Clock()
    other = Rollout()
    arm = RealTimeArm(going, other, Conditions(0.0, "skip", 0, CHUNK * 0.05), clock, lambda: None)
    observation = going.reset(0)
    for chunk in chunks:
        observation = arm.go_on(observation, LateChunk(chunk, clock.now_ns, 0.0))
    np.testing.assert_array_equal(still.executed, going.executed)
    np.testing.assert_array_equal(rollout.commanded_m, other.commanded_m)
    assert still.drawn == going.drawn


def test_an_arm_without_a_plan_holds_its_position_and_gripper_and_is_counted() -> None:
    task = Recording(12)
    clock = Clock()
    arm = RealTimeArm(task, Rollout(), Conditions(0.0, "skip", 0, 0.4), clock, lambda: None)
    actions = np.tile([0.1, 0, 0, 0, 0, 0, 0.0], (2, 1))  # a short chunk that closes the gripper
    observation = arm.go_on(task.reset(0), LateChunk(actions, clock.now_ns, 0.0))
    observation = arm.go_on(observation, None)
    assert arm.counts.hold_steps == 10
    assert arm.counts.unanswered == 1
    moved = 2 * 0.1 * 0.05
    np.testing.assert_allclose(observation.eef_position_m, [moved, 0, 0.5], atol=1e-12)
    assert [action[6] for action in task.executed] == [1.0] * 12  # closed


def test_an_arm_that_drifts_is_brought_back_to_where_it_began_to_hold() -> None:
    class Drifting(Recording):
        def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
            return super().step(action + np.eye(7)[0] * 0.1, render)

    task = Drifting(12)
    arm = RealTimeArm(task, Rollout(), Conditions(0.0, "skip", 0, 0.6), Clock(), lambda: None)
    observation = arm.go_on(task.reset(0), None)
    assert abs(observation.eef_position_m[0]) < 0.006  # one step's drift, not twelve


def test_an_episode_ends_with_its_goal_and_with_its_limit() -> None:
    task = Recording(5)
    clock = Clock()
    rollout = Rollout()
    seen: list[int] = []
    arm = RealTimeArm(
        task, rollout, Conditions(0.0, "skip", 0, 0.4), clock, lambda: seen.append(clock.now_ns)
    )
    still = LateChunk(np.zeros((CHUNK, 7)), clock.now_ns, 0.0)
    arm.go_on(task.reset(0), still)
    assert (rollout.steps, rollout.success, seen) == (
        5,
        False,
        [START_NS + step * PERIOD_NS for step in range(1, 6)],
    )
    task = Recording()
    rollout = Rollout()
    arm = RealTimeArm(task, rollout, Conditions(0.0, "skip", 0, 0.4), clock, lambda: None)
    away = np.tile([1.0, 0, 0, 0, 0, 0, 1], (CHUNK, 1))
    arm.go_on(task.reset(0), LateChunk(away, clock.now_ns, 0.0))
    assert (rollout.steps, rollout.success) == (2, True)


@given(
    latency_s=st.floats(0, 1),
    handover=st.sampled_from(list(HANDOVERS)),
    period_s=st.floats(0, 1),
    blend_steps=st.integers(0, 4),
)
def test_nothing_is_commanded_before_its_latency_has_passed_and_every_step_is_accounted_for(
    latency_s: float, handover: str, period_s: float, blend_steps: int
) -> None:
    inferences: list[int] = []
    task = Recording(30)
    clock = Clock()
    rollout = Rollout()
    arm = RealTimeArm(
        task, rollout, Conditions(latency_s, handover, blend_steps, period_s), clock, lambda: None
    )
    observation = task.reset(0)
    while rollout.steps < 30:
        inferences.append(rollout.steps)
        observation = arm.go_on(
            observation, LateChunk(chunk_of(len(inferences)), clock.now_ns, latency_s)
        )
    newest_allowed = [
        sum(inference * 0.05 + latency_s <= step * 0.05 + 1e-9 for inference in inferences)
        for step in range(30)
    ]
    assert all(
        value < allowed + 1 for value, allowed in zip(executed(task), newest_allowed, strict=True)
    )
    assert sum(value == 0 for value in executed(task)) == arm.counts.hold_steps
    assert arm.counts.looks == len(inferences)
    assert inferences == sorted(set(inferences))


def test_the_mean_latency_is_that_of_the_chunks() -> None:
    task = Recording(20)
    clock = Clock()
    arm = RealTimeArm(task, Rollout(), Conditions(MEASURED, "skip", 0, 0.0), clock, lambda: None)
    assert np.isnan(arm.counts.summary()["latency_s"])
    observation = task.reset(0)
    for latency_s in (0.05, 0.15):
        observation = arm.go_on(observation, LateChunk(chunk_of(1), clock.now_ns, latency_s))
    assert arm.counts.summary()["latency_s"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "make", [lambda: Conditions(0.1, "jump", 0, 0.0), lambda: Conditions(-0.5, "skip", 0, 0.0)]
)
def test_conditions_that_mean_nothing_are_refused(make: Callable[[], Conditions]) -> None:
    with pytest.raises(QvlaError):
        make()


def test_every_handover_is_run_with_every_latency_in_the_bridge() -> None:
    real_time = RealTime((0, 0.1), ("skip", "wait"), 2, 0.2, ("kill@3",))
    assert [condition.label for condition in real_time.conditions()] == [
        *("skip 0 ms", "wait 0 ms", "skip 100 ms", "wait 100 ms")
    ]
    assert real_time.parameters() == {
        "timing": "real_time",
        "latencies_s": [0.0, 0.1],
        "handovers": ["skip", "wait"],
        "faults": ["kill@3"],
        "blend_steps": 2,
        "observation_period_s": 0.2,
    }
    assert "faults" not in RealTime().parameters()
