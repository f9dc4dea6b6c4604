"""The end of a stop is found among a robot's commands: the first at rest from its stamp on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qvla_ros.testing.stop_command import MOVE, Command, find_rest, hardest_braking, meaning


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
        (commands((1, [1.0]), (3, [2.0]), (4, [2.5]), (5, [2.5])), 3, 3),  # braked to rest
        (commands((1, [1.0]), (3, [2.0])), 3, 1),  # it moves the robot: shown as it is
        (commands((1, [1.0]), (2, [2.0])), 3, None),
        (commands((0, [1.0]), (0, [2.0]), (0, [2.0]), (0, [2.0])), 3, 2),
        (commands((0, [1.0]), (0, [1.0]), (0, [2.0])), 3, None),
    ],
)
def test_a_stop_ends_with_the_first_command_from_its_stamp_on_that_does_not_move_the_robot(
    received: list[Command], stop_ns: int, expected: int | None
) -> None:
    assert find_rest(received, stop_ns) == expected


def test_a_command_moves_holds_or_stops_a_twist() -> None:
    received = commands((1, [1.0, 2.0]), (2, [1.0, 2.0]), (3, [0.0, 0.0]), (4, [1.0, 2.0]))
    assert [meaning(received, index) for index in range(4)] == [MOVE, "hold", "zero twist", MOVE]


def test_braking_is_the_largest_change_of_velocity_from_command_to_command() -> None:
    places = commands(*((0, [place, 9.0]) for place in (0.0, 0.3, 0.4, 0.4)))
    assert hardest_braking(places, 0.1, are_velocities=False) == pytest.approx(20.0)
    assert hardest_braking(places, 0.1, are_velocities=True) == pytest.approx(3.0)
    assert hardest_braking(places[:1], 0.1, are_velocities=True) == 0.0
    apart = [replace(each, stamp_ns=10**9 * index) for index, each in enumerate(places)]
    assert hardest_braking(apart, 0.1, are_velocities=True) == pytest.approx(0.3)
