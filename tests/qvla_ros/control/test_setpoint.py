"""What an action does to a setpoint, and which bundles may move a robot at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.setpoint import MotionSpec, Setpoint, advance, motion_spec
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.specification import ACTION_KIND, ACTION_NAMES, ACTION_UNITS, GRIPPER_INDEX

LIBERO = ActionSpec(
    ACTION_NAMES,
    ACTION_KIND,
    "world",
    ACTION_UNITS,
    GRIPPER_INDEX,
    "opening_fraction",
    8,
    0.05,
    "q99",
)
JOINTS = ActionSpec(
    ("a", "b", "grip"),
    "joint_position",
    "",
    ("rad", "rad", "1"),
    2,
    "opening_fraction",
    8,
    0.05,
    "q99",
)
START = Setpoint(
    np.array([0.1, 0.2, 0.3]), Rotation.from_euler("xyz", [0.3, -0.4, 0.5]).as_quat(), 1.0
)
DELTA = MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6)
ABSOLUTE = MotionSpec("end_effector_pose", 1.0, 1.0, 6)


def test_a_delta_moves_along_and_turns_about_fixed_axes() -> None:
    action = np.array([1.0, -0.5, 0.0, 0.2, 0.4, -1.0, 0.0])
    moved = advance(START, action, DELTA, 1.0)
    np.testing.assert_allclose(moved.linear, [0.15, 0.175, 0.3])
    expected = Rotation.from_rotvec(0.5 * action[3:6]) * Rotation.from_quat(START.quaternion_xyzw)
    assert (Rotation.from_quat(moved.quaternion_xyzw) * expected.inv()).magnitude() < 1e-12
    assert moved.gripper == 0.0


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_a_delta_taken_in_parts_is_the_delta(parts: list[float], seed: int) -> None:
    action = np.random.default_rng(seed).uniform(-1, 1, 7)
    setpoint = START
    for part in parts:
        setpoint = advance(setpoint, action, DELTA, part / sum(parts))
    whole = advance(START, action, DELTA, 1.0)
    np.testing.assert_allclose(setpoint.linear, whole.linear, atol=1e-12)
    np.testing.assert_allclose(setpoint.quaternion_xyzw, whole.quaternion_xyzw, atol=1e-12)


def test_an_absolute_action_is_approached_straight_and_reached_exactly() -> None:
    action = np.array([0.5, 0.0, -0.1, 0.3, 0.2, 0.1, 0.0])
    end = advance(START, action, ABSOLUTE, 1.0)
    assert end.linear.tolist() == action[:3].tolist()
    np.testing.assert_allclose(Rotation.from_quat(end.quaternion_xyzw).as_rotvec(), action[3:6])
    half = advance(START, action, ABSOLUTE, 0.5)
    np.testing.assert_allclose(half.linear, (START.linear + action[:3]) / 2)
    turns = [Rotation.from_quat(setpoint.quaternion_xyzw) for setpoint in (START, half, end)]
    assert (turns[1] * turns[0].inv()).magnitude() == pytest.approx(
        (turns[2] * turns[1].inv()).magnitude()
    )
    assert half.gripper == 0.0  # no half-open between open and closed


def test_joints_are_what_is_left_without_the_gripper() -> None:
    spec = motion_spec(
        replace(JOINTS, names=("a", "grip", "b"), units=("rad", "1", "rad"), gripper_index=1),
        None,
        None,
    )
    moved = advance(Setpoint(np.zeros(2)), np.array([0.1, 0.7, -0.2]), spec, 1.0)
    assert moved == Setpoint(moved.linear, None, 0.7)
    assert moved.linear.tolist() == [0.1, -0.2]


def test_nothing_moves_in_no_time() -> None:
    assert advance(START, np.ones(7), DELTA, 0.0) is START


def test_liberos_units_need_both_scales_and_joints_in_radians_none() -> None:
    assert motion_spec(LIBERO, 0.05, 0.5) == DELTA
    assert motion_spec(JOINTS, None, None) == MotionSpec("joint_position", 1.0, 1.0, 2)
    assert motion_spec(JOINTS, 1.0, None) == motion_spec(JOINTS, None, None)


def test_metres_and_radians_need_no_scale_and_each_unit_asks_for_its_own() -> None:
    metres = ("m", "Metres", "meter", "rad", "radians", "RAD", "1")
    assert motion_spec(replace(LIBERO, units=metres), None, None) == replace(
        DELTA, linear_scale=1.0, angular_scale=1.0
    )
    mixed = replace(LIBERO, units=("m", "m", "m", *ACTION_UNITS[3:]))
    assert motion_spec(mixed, None, 0.5) == replace(DELTA, linear_scale=1.0)
    with pytest.raises(QvlaError, match="angular_scale"):
        motion_spec(mixed, None, None)
    with pytest.raises(QvlaError, match="linear_scale"):
        motion_spec(mixed, 0.05, 0.5)


@given(st.integers(0, 2**32 - 1))
def test_an_absolute_action_is_reached_to_the_last_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    start = Setpoint(random.normal(size=3) * 10.0 ** random.uniform(-6, 3, 3))
    target = random.normal(size=3) * 10.0 ** random.uniform(-6, 3, 3)
    spec = MotionSpec("joint_position", 1.0, 1.0, None)
    assert advance(start, target, spec, 1.0).linear.tolist() == target.tolist()


def test_scales_apply_to_absolute_actions_too_and_joints_have_no_rotation() -> None:
    action = np.array([0.2, -0.4, 0.6, 0.1, 0.2, 0.3, 1.0])
    linear, rotation_vector, gripper = MotionSpec("end_effector_pose", 0.5, 2.0, 6).split(action)
    assert linear.tolist() == [0.1, -0.2, 0.3]
    assert rotation_vector.tolist() == [0.2, 0.4, 0.6]
    assert gripper == 1.0
    linear, rotation_vector, gripper = MotionSpec("joint_position", 0.5, 2.0, None).split(action)
    assert linear.tolist() == (0.5 * action).tolist()
    assert rotation_vector is None
    assert gripper is None


@pytest.mark.parametrize(
    ("actions", "linear", "angular", "key"),
    [
        (LIBERO, None, 0.5, "linear_scale"),
        (LIBERO, 0.05, None, "angular_scale"),
        (LIBERO, -0.05, 0.5, "linear_scale"),
        (LIBERO, 0.0, 0.5, "linear_scale"),
        (LIBERO, float("nan"), 0.5, "linear_scale"),
        (LIBERO, float("inf"), 0.5, "linear_scale"),
        (LIBERO, 0.05, float("inf"), "angular_scale"),
        (JOINTS, 0.5, None, "linear_scale"),  # it would contradict the bundle
        (replace(LIBERO, kind="wave_hand"), 0.05, 0.5, "actions.kind"),
        (replace(LIBERO, gripper_index=None, gripper_convention=None), 0.05, 0.5, "actions.names"),
    ],
)
def test_what_cannot_be_commanded_is_refused(
    actions: ActionSpec, linear: float | None, angular: float | None, key: str
) -> None:
    with pytest.raises(QvlaError, match=key):
        motion_spec(actions, linear, angular)
