"""Chunks are executed to their end and no further; an arm without a policy comes to rest."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.libero import HOLD_ACTION
from qvla_ros.simulation.motion import rms_jerk_m_s3
from qvla_ros.simulation.rollout import Rollout, execute, hold_still


def _chunk(length: int, dx: float, opening: float = 1.0) -> np.ndarray:
    return np.tile([0.0, 0.0, dx, 0.0, 0.0, 0.0, opening], (length, 1))


def test_a_chunk_stops_at_success_and_draws_only_its_end() -> None:
    task = FakeTask("fake", 0, 16)
    rollout = Rollout()
    observation = execute(task, rollout, task.reset(0), _chunk(3, 0.1))
    assert set(observation.images) == {"agentview", "wrist"}
    assert (rollout.steps, rollout.success) == (3, False)
    observation = execute(task, rollout, observation, _chunk(8, 1.0))
    assert (rollout.steps, rollout.success) == (5, True)


def test_a_chunk_stops_at_the_step_limit() -> None:
    task = FakeTask("fake", 0, 16, max_steps=5)
    rollout = Rollout()
    execute(task, rollout, task.reset(0), _chunk(8, 0.01))
    assert rollout.steps == 5


def test_holding_still_keeps_the_gripper_as_it_was() -> None:
    for opening in (0.0, 1.0):
        task = FakeTask("fake", 0, 16)
        rollout = Rollout()
        before = execute(task, rollout, task.reset(0), _chunk(2, 0.5, opening))
        hold = hold_still(task, rollout, before)
        after = task.step(np.array([0.0] * 6 + [rollout.last_action[6]]), render=False)[0]
        assert hold.at_rest
        assert hold.moved_m == 0
        np.testing.assert_array_equal(after.gripper_positions_m, before.gripper_positions_m)


def test_an_arm_that_coasts_is_brought_back_to_where_it_was() -> None:
    class Coasting(FakeTask):
        speed = 0.8

        def step(self, action, render):
            self.speed *= 0.7
            return super().step(action + np.eye(7)[0] * self.speed, render)

    task = Coasting("fake", 0, 16)
    before = task.reset(0)
    hold = hold_still(task, Rollout(), before)
    after = task.step(np.array(HOLD_ACTION), render=False)[0]
    assert hold.at_rest
    assert 0.02 < hold.moved_m < 0.04
    np.testing.assert_allclose(after.eef_position_m, before.eef_position_m, atol=1e-3)


def test_an_arm_that_does_not_stop_is_reported_as_moving() -> None:
    class Runaway(FakeTask):
        def step(self, action, render):
            return super().step(action + np.eye(7)[0] * 2.0, render)

    task = Runaway("fake", 0, 16)
    hold = hold_still(task, Rollout(), task.reset(0))
    assert not hold.at_rest
    assert "was still moving" in str(hold)


def test_the_jerk_of_a_cubic_is_its_third_derivative() -> None:
    t = np.arange(20) * 0.05
    positions = np.stack([2 * t**3, t**2, np.ones_like(t)], axis=1)
    assert rms_jerk_m_s3(positions, 0.05) == pytest.approx(12.0)
    assert rms_jerk_m_s3(positions[:3], 0.05) is None
