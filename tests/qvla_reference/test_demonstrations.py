"""Recorded episodes: what they hold, and that they survive the disk."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from qvla_reference.demonstrations import (
    CAMERAS,
    CHUNK_LENGTH,
    Disturbances,
    episode_path,
    random_start,
    read_episode,
    record_episode,
    write_episode,
)
from qvla_reference.expert import PickPlaceExpert
from qvla_reference.privileged import PrivilegedScene
from qvla_ros.errors import QvlaError


def test_a_file_that_is_no_episode_is_named(tmp_path):
    path = tmp_path / "episode.npz"
    np.savez(path, label_actions=np.zeros((3, 7)))
    with pytest.raises(QvlaError, match=r"episode\.npz"):
        read_episode(path)


@pytest.fixture(scope="module")
def episode(milk_task):
    often = Disturbances(push_every_steps=25.0)
    recorded = record_episode(milk_task, PickPlaceExpert(), (1, 7, 2), often, image_period=12)
    assert recorded is not None
    return recorded


@pytest.mark.simulation
def test_the_disturbed_expert_succeeds_and_holds_afterwards(episode):
    assert len(episode) == episode.facts["success_step"] + 16
    assert episode.series["is_push"].any()
    assert not episode.series["is_push"][episode.facts["success_step"] :].any()
    assert (episode.series["label_actions"][-16:, 6] == -1.0).all()
    placed = np.abs(episode.series["object_position_m"][-1] - episode.series["goal_position_m"][-1])
    assert placed[:2].max() < 0.08


@pytest.mark.simulation
def test_labels_are_the_experts_and_differ_from_what_was_done(episode):
    labels = episode.series["label_actions"]
    executed = episode.series["executed_actions"]
    noisy = ~episode.series["is_push"]
    assert 0.0 < np.abs(labels - executed)[noisy].mean() < 0.25
    assert np.abs(labels - executed)[~noisy].mean() > 0.25
    assert np.abs(labels).max() <= 1.0


@pytest.mark.simulation
def test_every_image_is_followed_by_a_whole_chunk_without_a_push(episode):
    assert len(episode.image_steps) > 2
    for index, step in enumerate(episode.image_steps):
        assert episode.action_chunk(index).shape == (CHUNK_LENGTH, 7)
        assert not episode.series["is_push"][step : step + CHUNK_LENGTH].any()
        for camera in CAMERAS:
            assert episode.image(camera, index).shape == (128, 128, 3)
            assert episode.image(camera, index).std() > 10.0


@pytest.mark.simulation
def test_an_episode_reads_back_as_it_was_written(episode, tmp_path):
    path = episode_path(tmp_path, "libero_object", 7, 2)
    write_episode(path, episode)
    back = read_episode(path)
    assert back.facts == episode.facts
    assert back.jpegs == episode.jpegs
    np.testing.assert_array_equal(back.image_steps, episode.image_steps)
    for name, values in episode.series.items():
        np.testing.assert_array_equal(back.series[name], values)
    assert [file.name for file in path.parent.iterdir()] == ["episode_00002.npz"]


@pytest.mark.simulation
def test_a_seed_fixes_the_whole_episode(milk_task, episode):
    first, second = (
        record_episode(milk_task, PickPlaceExpert(), (1, 7, 3), image_period=None) for _ in range(2)
    )
    np.testing.assert_array_equal(
        first.series["executed_actions"], second.series["executed_actions"]
    )
    assert not np.array_equal(
        first.series["eef_position_m"][0], episode.series["eef_position_m"][0]
    )


@pytest.mark.simulation
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_episode_may_start_where_a_test_does(milk_task, share):
    at_rest = milk_task.reset(None, seed=5).eef_position_m
    scene = PrivilegedScene(milk_task)
    rng = np.random.default_rng(5)
    observation = random_start(
        milk_task, scene, rng, Disturbances(start_at_rest=share, start_near_object=1.0)
    )
    assert set(observation.images) == set(CAMERAS)
    moved_m = np.abs(observation.eef_position_m - at_rest).max()
    assert moved_m < 0.002 if share else moved_m > 0.02


def test_an_error_in_a_worker_process_arrives_whole():
    error = pickle.loads(pickle.dumps(QvlaError("task_id", 10, "0 to 9", "choose another")))
    assert (error.key, error.value, error.expected, error.fix) == (
        "task_id",
        "10",
        "0 to 9",
        "choose another",
    )
