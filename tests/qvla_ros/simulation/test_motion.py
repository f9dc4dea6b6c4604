"""How far an arm went and how often its gripper turned."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.simulation.motion import gripper_flips, path_length_m


def test_the_length_of_a_path_is_that_of_its_legs() -> None:
    assert path_length_m([[0, 0, 0], [0, 3, 4], [0, 3, 5], [0, 3, 4]]) == pytest.approx(7.0)
    assert path_length_m(np.zeros((1, 3))) == 0.0


@given(st.lists(st.sampled_from([-1.0, -0.2, 0.0, 0.5, 1.0]), max_size=30))
def test_a_gripper_flips_once_for_each_change_of_direction(commands: list[float]) -> None:
    directions = [command > 0 for command in commands if command]
    expected = sum(a != b for a, b in pairwise(directions))
    assert gripper_flips(commands) == expected
