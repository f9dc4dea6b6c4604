"""Labels at the states that a learner visits."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_reference.dagger import expert_chunk, record_learner_episode
from qvla_reference.demonstrations import read_episode, write_episode
from qvla_reference.expert import PickPlaceExpert
from qvla_reference.privileged import PrivilegedScene
from qvla_ros.simulation.libero import HOLD_ACTION

EXPERT = PickPlaceExpert()


@pytest.mark.simulation
@pytest.mark.parametrize("holding", [False, True])
def test_a_chunk_is_what_the_expert_then_does(milk_task, holding):
    milk_task.reset(None, seed=3, settle_steps=2)
    scene = PrivilegedScene(milk_task)
    while holding and not scene.state().object_touches_fingers:
        milk_task.step(EXPERT.act(scene.state()), render=False)
    before = milk_task.environment.sim.get_state().flatten()
    chunk = expert_chunk(milk_task, EXPERT, scene)
    np.testing.assert_array_equal(milk_task.environment.sim.get_state().flatten(), before)
    for expected in chunk:
        action = EXPERT.act(scene.state())
        np.testing.assert_array_equal(action.astype(np.float32), expected)
        milk_task.step(action, render=False)


@pytest.mark.simulation
def test_an_episode_ends_when_its_object_lies_below_the_containers_ground(milk_task):
    def lift_the_basket(observation, instruction):
        (joint,) = milk_task.environment.objects_dict["basket_1"].joints
        milk_task.environment.sim.data.set_joint_qpos(joint, [0.0, 0.5, 3.0, 1.0, 0.0, 0.0, 0.0])
        return np.tile(HOLD_ACTION, (8, 1))

    assert len(record_learner_episode(milk_task, EXPERT, lift_the_basket, seed=(5,))) == 8


@pytest.mark.simulation
def test_the_labels_of_a_learner_that_never_moves_go_on(milk_task, tmp_path):
    class Short:
        """The same task with a short step limit."""

        max_steps = 16

        def __getattr__(self, name):
            return getattr(milk_task, name)

    def idle(observation, instruction):
        assert observation.images["wrist"].shape == (128, 128, 3)
        assert instruction == milk_task.instruction
        return np.tile(HOLD_ACTION, (8, 1))

    episode = record_learner_episode(Short(), EXPERT, idle, seed=(5,))
    assert episode.facts["success_step"] == -1
    assert episode.image_steps.tolist() == [0, 8]
    np.testing.assert_array_equal(
        episode.series["executed_actions"], np.tile(np.float32(HOLD_ACTION), (16, 1))
    )
    assert np.abs(episode.action_chunk(1)[:, :3]).max() > 0.3
    write_episode(tmp_path / "episode.npz", episode)
    np.testing.assert_array_equal(
        read_episode(tmp_path / "episode.npz").action_chunk(1), episode.action_chunk(1)
    )
