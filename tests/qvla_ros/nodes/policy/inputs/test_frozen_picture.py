"""The same bytes again and again are refused once the arm has moved meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_ros.control import rotation
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.policy.inputs.frozen_picture import FrozenPicture

PICTURE = np.full((4, 4, 3), 90, np.uint8)
OTHER = np.full((4, 4, 3), 91, np.uint8)


def at(x: float, turn_rad: float = 0.0) -> Setpoint:
    return Setpoint(np.array([x, 0.0]), rotation.from_rotation_vector([0.0, 0.0, turn_rad]))


def look(frozen: FrozenPicture, picture: np.ndarray, state: Setpoint | None) -> np.ndarray:
    return frozen.require_change(picture.copy(), lambda: state, "/camera")


def test_a_picture_that_stays_while_the_arm_moves_is_refused_until_it_changes() -> None:
    frozen = FrozenPicture(5)
    for tick in range(5):
        look(frozen, PICTURE, at(0.02 * tick))
    with pytest.raises(QvlaError, match="/camera: got the same picture 6 times"):
        look(frozen, PICTURE, at(0.02 + 0.051))
    look(frozen, OTHER, at(0.1))
    look(frozen, OTHER, at(0.2))


def test_a_turn_of_the_arm_changes_the_picture_too() -> None:
    frozen = FrozenPicture(1)
    look(frozen, PICTURE, at(0.0))
    look(frozen, PICTURE, at(0.0))
    look(frozen, PICTURE, at(0.04, turn_rad=0.09))
    with pytest.raises(QvlaError, match="4 times"):
        look(frozen, PICTURE, at(0.0, turn_rad=0.11))


@pytest.mark.parametrize(
    ("most", "states"),
    [
        (5, [at(0.3)] * 100),  # at rest
        (5, [None] * 100),
        (5, [None, *[at(0.3)] * 100]),
        (0, [at(0.1 * tick) for tick in range(100)]),  # any number is taken
    ],
)
def test_a_picture_may_stay_while_nothing_is_seen_to_move(
    most: int, states: list[Setpoint | None]
) -> None:
    frozen = FrozenPicture(most)
    for state in states:
        np.testing.assert_array_equal(look(frozen, PICTURE, state), PICTURE)
