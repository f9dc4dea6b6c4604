"""The suite that names another object of a libero_object scene."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from qvla_ros.simulation.libero import LiberoTask
from qvla_ros.simulation.named_object import SUITE, name_other_object, scene_and_other
from qvla_ros.simulation.specification import SUITE_TASK_COUNTS


def scene() -> SimpleNamespace:
    names = ("milk", "basket", "ketchup", "cream_cheese", "butter", "bbq_sauce", "orange_juice")
    problem = {
        "objects": {name: [f"{name}_1"] for name in names},
        "goal_state": [["in", "milk_1", "basket_1_contain_region"]],
    }
    return SimpleNamespace(parsed_problem=problem)


def test_every_task_is_another_pair_of_scene_and_object() -> None:
    pairs = [scene_and_other(task) for task in range(SUITE_TASK_COUNTS[SUITE])]
    assert len(set(pairs)) == 50
    assert {number for number, _ in pairs} == set(range(10))
    assert {other for _, other in pairs} == set(range(5))


def test_neither_the_usual_object_nor_the_container_is_named() -> None:
    goals = []
    for other in range(5):
        environment = scene()
        instruction = name_other_object(environment, other)
        ((predicate, name, container),) = environment.parsed_problem["goal_state"]
        assert (predicate, container) == ("in", "basket_1_contain_region")
        assert (
            instruction == f"pick up the {name[:-2].replace('_', ' ')} and place it in the basket"
        )
        goals.append(name)
    assert goals == ["ketchup_1", "cream_cheese_1", "butter_1", "bbq_sauce_1", "orange_juice_1"]


@pytest.mark.simulation
def test_only_the_named_object_in_the_basket_is_a_success() -> None:
    with LiberoTask(SUITE, 35) as task:  # the milk's scene, its first other object
        assert task.instruction == "pick up the cream cheese and place it in the basket"
        task.reset(0)
        environment = task.environment
        basket = environment.sim.data.body_xpos[environment.obj_body_id["basket_1"]]
        for name, expected in (("milk_1", False), ("cream_cheese_1", True)):
            joint = environment.objects_dict[name].joints[-1]
            pose = environment.sim.data.get_joint_qpos(joint).copy()
            environment.sim.data.set_joint_qpos(
                joint, np.append(basket + [0.0, 0.0, 0.08], pose[3:])
            )
            environment.sim.forward()
            assert task.step(np.zeros(7), render=False)[1] is expected
            environment.sim.data.set_joint_qpos(joint, pose)
