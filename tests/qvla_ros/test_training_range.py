"""A state is given to the policy as its training data write it, and known where it is near them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.actions import quaternion_to_axis_angle
from qvla_ros.control import rotation
from qvla_ros.errors import QvlaError
from qvla_ros.training_range import TURN_NAMES, nearest_orientation, require_known_state

NAMES = ("eef_x", *TURN_NAMES, "finger")
LOW = np.array([-0.1, 2.9, -0.3, -0.3, 0.0])
HIGH = np.array([0.3, 3.3, 0.3, 0.3, 0.04])


def state(quaternion: np.ndarray) -> np.ndarray:
    return np.array([0.1, *quaternion_to_axis_angle(quaternion), 0.02])


@given(st.floats(2.95, 3.25), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_both_quaternions_of_an_orientation_give_the_same_numbers(
    x: float, y: float, z: float
) -> None:
    quaternion = rotation.from_rotation_vector([x, y, z])
    found = [
        nearest_orientation(NAMES, state(each), LOW, HIGH) for each in (quaternion, -quaternion)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-7)
    np.testing.assert_allclose(found[0], [0.1, x, y, z, 0.02], atol=1e-7)


def test_what_lies_in_the_range_stays_as_it_came_to_the_last_bit() -> None:
    values = state(rotation.from_rotation_vector([3.0, 0.1, 0.0]))
    assert nearest_orientation(NAMES, values, LOW, HIGH) is values
    still = np.array([0.1, 0.0, 0.0, 0.0, 0.02])
    assert nearest_orientation(NAMES, still, LOW, HIGH) is still
    assert nearest_orientation(("finger",), still[-1:], LOW[-1:], HIGH[-1:]) is not None


def test_the_other_rotation_vector_is_the_same_orientation() -> None:
    flipped = np.array([0.1, 3.0 - 2.0 * math.pi, 0.0, 0.0, 0.02])
    found = nearest_orientation(NAMES, flipped, LOW, HIGH)
    np.testing.assert_allclose(found[1:4], [3.0, 0.0, 0.0])
    np.testing.assert_array_equal(found[[0, 4]], flipped[[0, 4]])


def test_a_state_far_outside_is_named_with_its_range() -> None:
    near = np.array([0.3 + 0.2 + 0.049, 3.0, 0.0, 0.0, 0.0])
    require_known_state(NAMES, near, LOW, HIGH)
    near[0] += 0.002
    with pytest.raises(QvlaError, match=r"eef_x 0\.551; expected about -0\.1 to 0\.3"):
        require_known_state(NAMES, near, LOW, HIGH)
    degrees = np.array([0.1, 3.0, 0.0, 0.0, -7.5])
    with pytest.raises(QvlaError, match=r"finger -7\.5; expected about 0 to 0\.04"):
        require_known_state(NAMES, degrees, LOW, HIGH)
