"""Each kind of action says what it moves and whether its numbers are added."""

from __future__ import annotations

import pytest

from qvla_ros.control.action_kinds import action_kind
from qvla_ros.errors import QvlaError


@pytest.mark.parametrize(
    ("name", "moves", "is_delta"),
    [
        ("delta_end_effector_pose", "pose", True),
        ("end_effector_pose", "pose", False),
        ("joint_position", "joints", False),
        ("delta_joint_position", "joints", True),
    ],
)
def test_a_kind_knows_what_it_moves_and_how(name: str, moves: str, is_delta: bool) -> None:
    kind = action_kind(name)
    assert (kind.name, kind.moves, kind.is_delta) == (name, moves, is_delta)


def test_another_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QvlaError, match=r"actions.kind: got joint_postion; expected one of delta_"):
        action_kind("joint_postion")
