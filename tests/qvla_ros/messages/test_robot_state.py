"""Joint states are read by name, and messages that are no robot's are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import MAX_JOINTS, joint_positions


def message(count: int) -> SimpleNamespace:
    names = [f"joint{index}" for index in range(count)]
    return SimpleNamespace(name=names, position=[0.5] * count)


def test_a_message_of_thousands_of_joints_is_refused() -> None:
    assert joint_positions(message(MAX_JOINTS), "/joint_states", ["joint3"])["joint3"] == 0.5
    with pytest.raises(QvlaError, match=f"got {MAX_JOINTS + 1} names; expected at most"):
        joint_positions(message(MAX_JOINTS + 1), "/joint_states", ["joint3"])


def test_the_names_of_a_message_that_lacks_a_joint_are_quoted_in_part() -> None:
    with pytest.raises(QvlaError, match="also elbow") as refused:
        joint_positions(message(200), "/joint_states", ["joint3", "elbow"])
    assert len(str(refused.value)) < 500
