"""Quaternions and rotation vectors against scipy, for any number of them at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from qvla_ros.control import rotation

SEEDS = st.integers(0, 2**32 - 1)


def random_quaternions(seed: int, count: int = 20) -> np.ndarray:
    return rotation.normalize(np.random.default_rng(seed).normal(size=(count, 4)))


@given(SEEDS)
def test_turning_and_measuring_turns_agree_with_scipy(seed: int) -> None:
    start = random_quaternions(seed)
    end = random_quaternions(seed + 1)
    expected = (Rotation.from_quat(end) * Rotation.from_quat(start).inv()).as_rotvec()
    np.testing.assert_allclose(rotation.between(start, end), expected, atol=1e-12)
    back = Rotation.from_quat(rotation.turn(start, expected)) * Rotation.from_quat(end).inv()
    assert back.magnitude().max() < 1e-12


@given(SEEDS, st.floats(-300, 1))
def test_rotation_vectors_survive_the_way_to_quaternions_and_back_however_small(
    seed: int, exponent: float
) -> None:
    vectors = np.random.default_rng(seed).uniform(-1.0, 1.0, (20, 3)) * min(10.0**exponent, 1.8)
    np.testing.assert_allclose(
        rotation.to_rotation_vector(rotation.from_rotation_vector(vectors)),
        vectors,
        rtol=1e-12,
        atol=1e-320,
    )


@given(SEEDS, st.floats(0.0, 1.0))
def test_slerp_takes_the_short_way_at_constant_speed(seed: int, fraction: float) -> None:
    start, end = random_quaternions(seed, 2)
    expected = Slerp([0.0, 1.0], Rotation.from_quat([start, end]))(fraction)
    for sign in (1.0, -1.0):  # q and -q are one rotation
        found = Rotation.from_quat(rotation.slerp(start, sign * end, fraction))
        assert (found * expected.inv()).magnitude() < 1e-9


@given(SEEDS, st.floats(-300, 1))
def test_one_rotation_is_to_the_last_bit_what_it_is_among_many(seed: int, exponent: float) -> None:
    start = random_quaternions(seed)
    end = random_quaternions(seed + 1)
    vectors = np.random.default_rng(seed).uniform(-1.0, 1.0, (20, 3)) * 10.0**exponent
    vectors[0] = 0.0
    vectors[1, 0] = np.nan
    for function, arguments in (
        (rotation.length, (start,)),
        (rotation.length, (vectors,)),
        (rotation.multiply, (start, end)),
        (rotation.from_rotation_vector, (vectors,)),
        (rotation.to_rotation_vector, (start,)),
        (rotation.between, (start, end)),
        (rotation.turn, (start, vectors)),
    ):
        many = function(*arguments)
        for index, row in enumerate(many):
            np.testing.assert_array_equal(
                function(*(argument[index] for argument in arguments)), row, strict=True
            )


@given(SEEDS)
def test_rotations_may_have_any_leading_axes(seed: int) -> None:
    """Two rows of five rotations are what the ten are one below the other."""
    start = random_quaternions(seed, 10)
    end = random_quaternions(seed + 1, 10)
    vectors = np.random.default_rng(seed).uniform(-2.0, 2.0, (10, 3))
    for function, arguments in (
        (rotation.length, (vectors,)),
        (rotation.normalize, (start,)),
        (rotation.inverse, (start,)),
        (rotation.multiply, (start, end)),
        (rotation.from_rotation_vector, (vectors,)),
        (rotation.to_rotation_vector, (start,)),
        (rotation.between, (start, end)),
        (rotation.turn, (start, vectors)),
    ):
        in_rows = function(*(array.reshape(2, 5, -1) for array in arguments))
        np.testing.assert_array_equal(in_rows.reshape(10, -1), function(*arguments))


@given(SEEDS)
def test_products_and_inverses_agree_with_scipy(seed: int) -> None:
    left = random_quaternions(seed)
    right = random_quaternions(seed + 1)
    expected = (Rotation.from_quat(left) * Rotation.from_quat(right)).as_quat()
    found = rotation.multiply(left, right)
    np.testing.assert_allclose(found * np.sign((found * expected).sum(1))[:, None], expected)
    back = rotation.multiply(left, rotation.inverse(left))
    np.testing.assert_allclose(back, np.tile(rotation.IDENTITY, (20, 1)), atol=1e-15)


def test_a_rotation_of_half_a_turn_is_as_long_as_pi_whichever_way_round() -> None:
    for axis in np.eye(3):
        half = rotation.to_rotation_vector(np.array([*axis, 0.0]))
        np.testing.assert_allclose(np.abs(half), np.pi * axis)
        beyond = rotation.to_rotation_vector(rotation.from_rotation_vector(1.5 * np.pi * axis))
        np.testing.assert_allclose(beyond, -0.5 * np.pi * axis, atol=1e-12)


def test_no_turn_is_no_turn() -> None:
    assert rotation.between(rotation.IDENTITY, -rotation.IDENTITY).tolist() == [0.0, 0.0, 0.0]
    assert rotation.from_rotation_vector(np.zeros(3)).tolist() == rotation.IDENTITY.tolist()
