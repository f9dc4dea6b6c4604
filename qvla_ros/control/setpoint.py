"""The setpoint of a robot at one moment, and how a policy's action moves it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qvla_ros.bundle import ActionSpec
from qvla_ros.control import rotation
from qvla_ros.control.action_kinds import ACTION_KINDS, action_kind
from qvla_ros.errors import QvlaError

Array = NDArray[np.float64]
LENGTHS = {"m", "metre", "metres", "meter", "meters"}
ANGLES = {"rad", "radian", "radians"}
SI_UNITS = LENGTHS | ANGLES


@dataclass(frozen=True)
class Setpoint:
    """The place where the robot shall be, in the frame of the action specification.

    linear: float64 [n]: position of the end effector in metres (n = 3), or joint positions in
    radians (metres for sliding joints). quaternion_xyzw: its orientation, unit length, float64 [4];
    None for joints. gripper: opening fraction, 0 closed, 1 open; None where nothing is known or
    commanded. Leading batch axes are allowed in all.
    """

    linear: Array
    quaternion_xyzw: Array | None = None
    gripper: float | Array | None = None


@dataclass(frozen=True)
class MotionSpec:
    """How the columns of an action [A] move a setpoint.

    Without the gripper's column, the others are, for poses, three of translation and three of a
    rotation vector about the axes of the fixed frame (robosuite's OSC_POSE turns by it from the
    left as well), else one a joint. kind: a name of ACTION_KINDS. linear_scale: metres (or
    radians) per unit of a column; angular_scale: radians per unit of a rotation's column.
    """

    kind: str
    linear_scale: float
    angular_scale: float
    gripper_index: int | None

    @property
    def is_delta(self) -> bool:
        return ACTION_KINDS[self.kind].is_delta

    @property
    def is_pose(self) -> bool:
        return ACTION_KINDS[self.kind].moves == "pose"

    def split(self, action: Array) -> tuple[Array, Array | None, float | None]:
        """Splits an action [A] into translation or joints, rotation vector, and gripper.

        Translation or joints [n] are in m or rad, the rotation vector [3] of poses in rad.
        """
        moving = (
            action
            if self.gripper_index is None
            else action[np.arange(len(action)) != self.gripper_index]
        )
        gripper = None if self.gripper_index is None else float(action[self.gripper_index])
        if not self.is_pose:
            return self.linear_scale * moving, None, gripper
        return self.linear_scale * moving[:3], self.angular_scale * moving[3:], gripper


def motion_spec(
    actions: ActionSpec, linear_scale: float | None, angular_scale: float | None
) -> MotionSpec:
    """The bundle's actions as motion; QvlaError where no robot can be commanded with them.

    A scale (m or rad per unit) is needed where the bundle's units are not SI, e.g. 0.05 and 0.5 for
    LIBERO's controller units, and refused where they are, because then it would contradict the
    bundle.
    """
    kind = action_kind(actions.kind)
    units = [unit for index, unit in enumerate(actions.units) if index != actions.gripper_index]
    is_pose = kind.moves == "pose"
    if is_pose and len(units) != 6:
        fix = "export the policy with three columns of translation and three of a rotation vector"
        raise QvlaError(
            "actions.names", list(actions.names), "six columns that move an end effector", fix
        )
    linear = _scale("linear_scale", linear_scale, units[:3] if is_pose else units)
    angular = _scale("angular_scale", angular_scale, units[3:]) if is_pose else 1.0
    return MotionSpec(kind.name, linear, angular, actions.gripper_index)


def _scale(name: str, given: float | None, units: list[str]) -> float:
    others = [unit for unit in units if unit.lower() not in SI_UNITS]
    key = f"parameter {name}"
    if given is not None and not (np.isfinite(given) and given > 0.0):
        raise QvlaError(
            key,
            given,
            "a finite number above 0",
            f"-p {name}:=0.05 (m or rad per unit of the action)",
        )
    if others and given is None:
        fix = (
            f"-p {name}:=0.05 (m or rad per unit of the action; ask who recorded the training data)"
        )
        raise QvlaError(key, f"nothing, and actions in {others[0]!r}", "how much one unit is", fix)
    if not others and given not in (None, 1.0):
        raise QvlaError(
            key, given, f"nothing: the bundle's actions are in {units[0]}", f"leave {name} out"
        )
    return 1.0 if given is None else given


def advance(setpoint: Setpoint, action: Array, spec: MotionSpec, fraction: float) -> Setpoint:
    """The setpoint after `fraction` of one action [A].

    Delta kinds: moved by that fraction of the delta. Absolute kinds: moved that fraction of the way
    to the action's own setpoint, straight in space (or joints) and by slerp in orientation. The
    gripper steps: any fraction above 0 sets it.
    """
    if fraction <= 0.0:
        return setpoint
    linear, rotation_vector, gripper = spec.split(action)
    step = linear if spec.is_delta else linear - setpoint.linear
    moved = replace(setpoint, linear=setpoint.linear + fraction * step)
    if fraction == 1.0 and not spec.is_delta:
        moved = replace(moved, linear=linear)  # exactly there, without the rounding of a sum
    if rotation_vector is not None and setpoint.quaternion_xyzw is not None:
        start = setpoint.quaternion_xyzw
        if spec.is_delta:
            turned = rotation.turn(start, fraction * rotation_vector)
        else:
            turned = rotation.slerp(start, rotation.from_rotation_vector(rotation_vector), fraction)
        moved = replace(moved, quaternion_xyzw=turned)
    return moved if gripper is None else replace(moved, gripper=gripper)
