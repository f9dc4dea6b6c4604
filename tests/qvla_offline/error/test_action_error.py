"""The numbers that stand for a policy's error."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_offline.error.action_error import action_error, mean_interval

SHAPE = (40, 8, 7)


def test_the_error_is_the_squared_difference_summed_over_a_chunk_and_averaged_over_observations():
    actions = np.zeros((4, 2, 3))
    actions[1, 0, 2] = 2.0
    actions[3, 1, 0] = -1.0
    error = action_error(actions, np.zeros_like(actions))
    assert error.mean == pytest.approx(5 / 4)
    assert (error.median, error.maximum, error.observations) == (0.5, 4.0, 4)
    assert error.by_dimension == pytest.approx((1 / 4, 0.0, 1.0))
    assert sum(error.by_dimension) == pytest.approx(error.mean)
    assert error.episodes is None


def test_equal_actions_have_no_error_and_no_interval():
    actions = np.random.default_rng(0).normal(size=SHAPE)
    error = action_error(actions, actions)
    assert (error.mean, error.low, error.high, error.maximum) == (0.0, 0.0, 0.0, 0.0)


def test_the_interval_holds_the_mean_and_is_the_same_every_time():
    values = np.random.default_rng(1).exponential(size=200)
    low, high = mean_interval(values, np.arange(200))
    assert low < values.mean() < high
    assert mean_interval(values, np.arange(200)) == (low, high)
    by_theory = 1.96 * values.std() / 200**0.5
    assert (high - low) / 2 == pytest.approx(by_theory, rel=0.1)


def test_observations_of_one_episode_count_as_one_draw():
    generator = np.random.default_rng(2)
    of_episode = generator.exponential(size=20)
    actions = np.zeros((200, 1, 1))
    actions[:, 0, 0] = np.sqrt(np.repeat(of_episode, 10))
    names = [("suite", episode) for episode in range(20) for _ in range(10)]
    alone = action_error(actions, np.zeros_like(actions))
    clustered = action_error(actions, np.zeros_like(actions), names)
    assert clustered.episodes == 20
    assert clustered.mean == alone.mean
    wider = (clustered.high - clustered.low) / (alone.high - alone.low)
    assert wider == pytest.approx(10**0.5, rel=0.25)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 3)
    hits = 0
    for _ in range(60):
        values = np.repeat(generator.normal(1.0, 1.0, 60), 3) + generator.normal(0.0, 0.3, 180)
        low, high = mean_interval(values, groups)
        hits += low <= 1.0 <= high
    assert hits >= 50


def test_one_episode_alone_has_an_interval_of_its_mean():
    actions = np.ones((3, 1, 1))
    error = action_error(actions, np.zeros_like(actions), ["a", "a", "a"])
    assert (error.low, error.high, error.episodes) == (1.0, 1.0, 1)
