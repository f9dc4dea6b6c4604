"""A LIBERO task as a robot, against the benchmark's own environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import HOLD_ACTION, SETTLE_STEPS, LiberoTask

ACTIONS = np.random.default_rng(0).uniform(-1.0, 1.0, (8, 7))


def physics(task: LiberoTask) -> bytes:
    data = task.environment.sim.data
    arrays = (
        data.qpos,
        data.qvel,
        data.qacc,
        data.qacc_warmstart,
        data.ctrl,
        data.xpos,
        data.sensordata,
    )
    return np.float64(data.time).tobytes() + b"".join(
        np.ascontiguousarray(array).tobytes() for array in arrays
    )


def test_an_unknown_suite_is_named_before_anything_is_loaded():
    with pytest.raises(QvlaError, match=r"task_suite_name.*libero_objects.*libero_object"):
        LiberoTask("libero_objects", 0)


@pytest.mark.simulation
def test_a_task_outside_the_suite_is_refused():
    with pytest.raises(QvlaError, match="task_id: got 10"):
        LiberoTask("libero_object", 10)


@pytest.mark.simulation
def test_an_initial_state_outside_the_benchmark_is_refused(milk_task):
    with pytest.raises(QvlaError, match="init_state: got 50"):
        milk_task.reset(50)


@pytest.mark.simulation
@pytest.mark.parametrize("action", [np.full(7, np.nan), np.zeros(6)])
def test_an_action_that_is_not_seven_finite_numbers_is_refused(milk_task, action):
    with pytest.raises(QvlaError, match="action"):
        milk_task.step(action, render=False)


@pytest.mark.simulation
def test_the_instruction_is_the_task_language(milk_task):
    assert milk_task.instruction == "pick up the milk and place it in the basket"
    assert milk_task.max_steps == 280


@pytest.mark.simulation
def test_observations_are_those_of_the_benchmark_environment(milk_task):
    """The official protocol on the benchmark's environment, which always renders, resets hard."""
    from libero.libero import get_libero_path
    from libero.libero.envs import OffScreenRenderEnv

    name = "pick_up_the_milk_and_place_it_in_the_basket"
    bddl_file = Path(get_libero_path("bddl_files")) / "libero_object" / f"{name}.bddl"
    upstream = OffScreenRenderEnv(
        bddl_file_name=str(bddl_file), camera_heights=128, camera_widths=128
    )
    try:
        upstream.reset()
        upstream.set_init_state(milk_task._init_states[3])
        for _ in range(SETTLE_STEPS):
            expected = upstream.step(list(HOLD_ACTION))[0]
        expected = [expected] + [upstream.step(action)[0] for action in ACTIONS]
    finally:
        upstream.close()
    milk_task.reset(5)  # an episode before it must leave no trace
    milk_task.step(ACTIONS[0], render=False)
    observed = [milk_task.reset(3)] + [
        milk_task.step(action, render=i % 4 == 3)[0] for i, action in enumerate(ACTIONS)
    ]
    assert [observation.step for observation in observed] == list(range(len(ACTIONS) + 1))
    for raw, observation in zip(expected, observed, strict=True):
        np.testing.assert_allclose(observation.eef_position_m, raw["robot0_eef_pos"], atol=1e-9)
        np.testing.assert_allclose(
            observation.eef_quaternion_xyzw, raw["robot0_eef_quat"], atol=1e-9
        )
        np.testing.assert_allclose(
            observation.joint_positions_rad, raw["robot0_joint_pos"], atol=1e-9
        )
        np.testing.assert_allclose(
            observation.gripper_positions_m, raw["robot0_gripper_qpos"], atol=1e-9
        )
        assert bool(observation.images) == (observation.step % 4 == 0)
        if observation.images:
            np.testing.assert_array_equal(observation.images["agentview"], raw["agentview_image"])
            np.testing.assert_array_equal(
                observation.images["wrist"], raw["robot0_eye_in_hand_image"]
            )


@pytest.mark.simulation
def test_a_seed_fixes_a_fresh_placement_and_leaves_the_global_generator_alone(milk_task):
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    milk_task.reset(None, seed=4, settle_steps=1)
    assert np.random.random() == expected  # noqa: NPY002
    first = physics(milk_task)
    milk_task.reset(None, seed=5, settle_steps=1)
    assert physics(milk_task) != first
    milk_task.reset(None, seed=4, settle_steps=1)
    assert physics(milk_task) == first


@pytest.mark.simulation
def test_a_branch_leaves_no_trace_in_what_follows(milk_task):
    def episode(branching: bool) -> tuple[list[bytes], np.ndarray, int]:
        milk_task.reset(2, settle_steps=3)
        states = []
        for action in ACTIONS:
            observation, _ = milk_task.step(action, render=False)
            before = physics(milk_task)
            if branching:
                with milk_task.branch():
                    milk_task.step(-action, render=False)
                    milk_task.step(action, render=False)
                    assert physics(milk_task) != before
            assert physics(milk_task) == before
            states.append(before)
        return states, observation.joint_positions_rad, observation.step

    states, joints, step = episode(branching=True)
    plain_states, plain_joints, plain_step = episode(branching=False)
    assert states == plain_states
    assert joints.tobytes() == plain_joints.tobytes()
    assert step == plain_step


@pytest.mark.simulation
def test_a_branch_begins_with_what_touches_and_goes_as_the_simulation_would(milk_task):
    def touching() -> list[tuple[int, int, float]]:
        data = milk_task.environment.sim.data
        contacts = [data.contact[index] for index in range(data.ncon)]
        return [(contact.geom1, contact.geom2, contact.dist) for contact in contacts]

    milk_task.reset(2, settle_steps=3)
    outside = touching()
    assert len({pair[:2] for pair in outside}) > 1
    with milk_task.branch():
        assert touching() == outside
        milk_task.step(ACTIONS[0], render=False)
        tried = physics(milk_task)
    milk_task.step(ACTIONS[0], render=False)
    assert physics(milk_task) == tried


@pytest.mark.simulation
def test_a_second_task_does_not_blind_the_first(milk_task):
    before = milk_task.reset(1, settle_steps=1).images["agentview"]
    with LiberoTask("libero_object", 8, camera_size=128) as other:
        other.reset(1, settle_steps=1)
        beside = milk_task.reset(1, settle_steps=1).images["agentview"]
    after = milk_task.reset(1, settle_steps=1).images["agentview"]
    assert before.std() > 10.0
    np.testing.assert_array_equal(before, beside)
    np.testing.assert_array_equal(before, after)
