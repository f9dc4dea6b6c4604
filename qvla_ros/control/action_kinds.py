"""The kinds of actions by which a robot can be commanded: the values of the bundle's actions.kind.

A bundle of another kind runs without an output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qvla_ros.errors import QvlaError

Moves = Literal["joints", "pose"]


@dataclass(frozen=True)
class ActionKind:
    """One kind of action.

    moves: joint positions, or the end effector's pose. is_delta: the numbers are added to the
    setpoint; otherwise they are the setpoint itself.
    """

    name: str
    moves: Moves
    is_delta: bool


ACTION_KINDS = {
    kind.name: kind
    for kind in (
        ActionKind("delta_end_effector_pose", "pose", is_delta=True),
        ActionKind("end_effector_pose", "pose", is_delta=False),
        ActionKind("joint_position", "joints", is_delta=False),
        ActionKind("delta_joint_position", "joints", is_delta=True),
    )
}


def action_kind(name: str) -> ActionKind:
    """The kind of that name; QvlaError where no robot can be commanded with it."""
    if name not in ACTION_KINDS:
        expected = f"one of {', '.join(ACTION_KINDS)}"
        raise QvlaError("actions.kind", name, expected, "run this bundle with output:=none")
    return ACTION_KINDS[name]
