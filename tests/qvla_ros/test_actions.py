"""Actions come out in the robot's units as the reference computes them.

That holds for every gripper convention of the model.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.actions import (
    libero_action,
    libero_gripper,
    opening_fraction,
    quaternion_to_axis_angle,
    token_actions,
    unnormalize,
)
from qvla_ros.bundle import Statistics


def _statistics(low: list[float], high: list[float], mask: list[bool]) -> Statistics:
    return Statistics(np.array(low), np.array(high), np.array(low), np.array(high), np.array(mask))


def test_unnormalised_actions_equal_the_reference(vectors: dict) -> None:
    case = vectors["unnorm"]
    statistics = _statistics(case["low"], case["high"], case["mask"])
    for example in case["cases"]:
        assert unnormalize(example["x"], statistics).tolist() == example["oft"]
        assert unnormalize(example["x"], statistics, epsilon=0.0).tolist() == example["openvla"]


def test_action_tokens_mean_the_bin_centres_of_the_reference(vectors: dict) -> None:
    bins = vectors["action_bins"]
    for token, value in bins["token_to_value"].items():
        assert token_actions([[int(token)]], 32000).tolist() == [[value]]
    centers = token_actions(31999 - np.arange(255), 32000)
    assert centers[:4].tolist() == bins["centers_head"]
    assert centers[-2:].tolist() == bins["centers_tail"]
    assert centers[127] == bins["center_127"]
    for value, token in bins["value_to_token"].items():  # the token whose bin centre is nearest
        nearest = 31999 - np.abs(centers - float(value)).argmin()
        assert token == nearest or token_actions(token, 32000) == token_actions(nearest, 32000)


def test_rotations_equal_the_reference(vectors: dict) -> None:
    for case in vectors["quat_xyzw_to_axisangle"]:
        np.testing.assert_allclose(
            quaternion_to_axis_angle(case["q"]), case["a"], rtol=0, atol=1e-15
        )


@given(st.floats(0.01, 3.1), st.integers(0, 2))
def test_a_turn_about_an_axis_comes_back(angle: float, axis: int) -> None:
    quaternion = np.zeros(4)
    quaternion[axis] = np.sin(angle / 2)
    quaternion[3] = np.cos(angle / 2)
    expected = np.zeros(3)
    expected[axis] = angle
    np.testing.assert_allclose(quaternion_to_axis_angle(quaternion), expected, atol=1e-9)


def test_the_gripper_command_equals_the_reference(vectors: dict) -> None:
    for opening, expected in vectors["libero_gripper"].items():
        assert libero_gripper(float(opening)) == expected


@pytest.mark.parametrize(
    ("convention", "closed", "opened"),
    [("opening_fraction", 0.0, 1.0), ("closing_fraction", 1.0, 0.0), ("signed_closing", 1.0, -1.0)],
)
def test_every_gripper_convention_becomes_an_opening_fraction(
    convention: str, closed: float, opened: float
) -> None:
    assert opening_fraction([closed, opened], convention).tolist() == [0.0, 1.0]


def test_a_libero_action_changes_only_the_gripper_and_a_copy() -> None:
    action = np.array([0.1, -0.2, 0.3, 0.0, 0.5, -1.0, 0.9])
    assert libero_action(action).tolist() == [0.1, -0.2, 0.3, 0.0, 0.5, -1.0, -1.0]
    assert action[6] == 0.9
