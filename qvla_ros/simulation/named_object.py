"""libero_object_named: the scenes of libero_object with the instruction to fetch another object.

Each scene of libero_object has one object that LIBERO always asks for and five that it never does,
so a policy may ignore its instruction. Here task 5 s + i is scene s (its layout, its official
initial states, its step limit) with the instruction and the goal of its i-th other object, in the
order in which the scene's BDDL file declares them. The suite is ours, not LIBERO's; the sentence is
the one that LIBERO uses for that object in the object's own scene.
"""

from __future__ import annotations

from typing import Any

SUITE = "libero_object_named"
SCENE_SUITE = "libero_object"
OTHERS_A_SCENE = 5


def scene_and_other(task_index: int) -> tuple[int, int]:
    """A task's scene (a task of libero_object) and which of its other objects it names."""
    return divmod(task_index, OTHERS_A_SCENE)


def other_objects(environment: Any) -> list[str]:
    """Names of a scene's objects besides its usual one and the basket.

    environment: a robosuite environment of SCENE_SUITE.
    """
    problem = environment.parsed_problem
    ((_, usual, container),) = problem["goal_state"]
    standing = [name for names in problem["objects"].values() for name in names]
    others = [name for name in standing if name != usual and not container.startswith(name)]
    assert len(others) == OTHERS_A_SCENE, others
    return others


def goal_of(environment: Any, object_name: str) -> tuple[str, str, str]:
    """The scene's goal (predicate, object, container) with `object_name` as its object."""
    ((predicate, _, container),) = environment.parsed_problem["goal_state"]
    return predicate, object_name, container


def instruction_of(object_name: str) -> str:
    """LIBERO's instruction for an object, for example "cream_cheese_1"."""
    return (
        f"pick up the {object_name.rpartition('_')[0].replace('_', ' ')} and place it in the basket"
    )


def name_other_object(environment: Any, other: int) -> str:
    """Makes the scene's `other`-th other object the goal, and returns the instruction."""
    name = other_objects(environment)[other]
    environment.parsed_problem["goal_state"] = [list(goal_of(environment, name))]
    return instruction_of(name)
