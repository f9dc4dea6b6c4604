"""One picture, six instructions, six labels."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_reference.demonstrations import read_episode, write_episode
from qvla_reference.every_instruction import IMAGE_PERIOD, record_every_instruction
from qvla_reference.expert import PickPlaceExpert
from qvla_ros.simulation.named_object import SUITE


@pytest.mark.simulation
def test_the_same_pictures_are_labelled_for_every_object_that_could_be_named(milk_task, tmp_path):
    steps = 2 * IMAGE_PERIOD + 1
    episodes = record_every_instruction(milk_task, PickPlaceExpert(), (0,), steps)

    usual = episodes[0]
    others = episodes[1:]
    assert [episode.facts["task_id"] for episode in others] == [35, 36, 37, 38, 39]
    assert {episode.facts["suite"] for episode in others} == {SUITE}
    assert (usual.facts["suite"], usual.facts["task_id"]) == ("libero_object", 7)
    assert len({episode.facts["instruction"] for episode in episodes}) == 6
    for episode in others:
        np.testing.assert_array_equal(episode.image_steps, [0, IMAGE_PERIOD, 2 * IMAGE_PERIOD])
        assert episode.jpegs == usual.jpegs
        np.testing.assert_array_equal(
            episode.series["executed_actions"], usual.series["executed_actions"]
        )
    ways = np.array([episode.action_chunk(0)[:, :3].ravel() for episode in episodes])
    assert len(np.unique(ways.round(3), axis=0)) == 6  # six objects, six ways to go
    for episode in episodes:
        np.testing.assert_array_equal(
            episode.action_chunk(1)[0], episode.series["label_actions"][IMAGE_PERIOD]
        )
        assert not (episode.series["executed_actions"][:, -1] > 0).any()  # never grasps
    path = tmp_path / "episode_00000.npz"
    write_episode(path, others[2])
    assert read_episode(path).facts["instruction"] == others[2].facts["instruction"]
