"""The stop is found among a robot's commands by its stamp, or as the first of those that repeat."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_ros.testing.stop_command import MOVE, Command, find_stop, meaning


def commands(*received: tuple[int, list[float]]) -> list[Command]:
    return [
        Command(0.1 * index, stamp_ns, np.array(numbers))
        for index, (stamp_ns, numbers) in enumerate(received)
    ]


@pytest.mark.parametrize(
    ("received", "stop_ns", "expected"),
    [
        (commands((1, [1.0]), (2, [2.0]), (3, [2.0])), 3, 2),
        (commands((1, [1.0]), (3, [2.0]), (3, [2.0]), (3, [2.0])), 3, 2),
        (commands((1, [1.0]), (3, [2.0]), (3, [0.0])), 3, 2),
        (commands((1, [1.0]), (3, [2.0])), 3, 1),  # it moves the robot: shown as it is
        (commands((1, [1.0]), (2, [2.0])), 3, None),
        (commands((0, [1.0]), (0, [2.0]), (0, [2.0]), (0, [2.0])), 3, 2),
        (commands((0, [1.0]), (0, [1.0]), (0, [2.0])), 3, None),
    ],
)
def test_the_stop_is_the_first_command_of_its_stamp_that_does_not_move_the_robot(
    received: list[Command], stop_ns: int, expected: int | None
) -> None:
    assert find_stop(received, stop_ns) == expected


def test_a_command_moves_holds_or_stops_a_twist() -> None:
    received = commands((1, [1.0, 2.0]), (2, [1.0, 2.0]), (3, [0.0, 0.0]), (4, [1.0, 2.0]))
    assert [meaning(received, index) for index in range(4)] == [MOVE, "hold", "zero twist", MOVE]
