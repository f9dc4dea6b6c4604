"""Standard robot commands: a motion in, a stamped message out. Which one, and where to, the node's
parameters say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builtin_interfaces.msg import Duration as DurationMessage
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.limits import MotionState
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.parameters.policy import CommandParameters

JOINT_KINDS = ("joint_position", "delta_joint_position")
_NEEDS_JOINTS = {"joint_trajectory": True, "position_array": True, "twist": False, "pose": False}


StopAction = Literal["hold", "zero", "none"]


@dataclass(frozen=True)
class CommandForm:
    """What commands have in common. frame: their frame_id; joints: in the order of the setpoint's
    numbers.
    """

    output: str
    stop_action: StopAction
    frame: str
    joints: tuple[str, ...]
    period_s: float


def command_form(
    parameters: CommandParameters, stop_action: str, actions: ActionSpec, period_s: float
) -> CommandForm:
    """From the node's parameters, `output` not "none". QvlaError where output, stop action and
    bundle do not fit.
    """
    output = parameters.output
    joints = parameters.joints
    moves_joints = actions.kind in JOINT_KINDS
    if _NEEDS_JOINTS[output] != moves_joints:
        fitting = ", ".join(name for name, needs in _NEEDS_JOINTS.items() if needs == moves_joints)
        fix = f"choose one of {fitting}, or a bundle of another kind"
        raise QvlaError(
            "parameter output", output, f"an output for actions of kind {actions.kind}", fix
        )
    if output == "twist" and actions.kind == "end_effector_pose":
        expected = (
            "pose: velocities towards a place are not corrected by where the arm "
            "went, so it would part from it"
        )
        raise QvlaError(
            "parameter output", output, expected, "-p output:=pose, or a bundle of deltas"
        )
    size = len(actions.names) - (actions.gripper_index is not None)
    if moves_joints and (len(joints) != size or len(set(joints)) != size):
        fix = f"name the robot's joints in the order of the bundle's actions {list(actions.names)}"
        raise QvlaError("parameter joints", list(joints), f"{size} distinct names", fix)
    moving = [name for index, name in enumerate(actions.names) if index != actions.gripper_index]
    if moves_joints and set(joints) == set(moving) and list(joints) != moving:
        raise QvlaError(
            "parameter joints",
            list(joints),
            f"the bundle's order {moving}",
            "put them in this order",
        )
    if stop_action == "auto":
        stop_action = "zero" if output == "twist" else "hold"
    if (stop_action, output == "twist") in (("zero", False), ("hold", True)):
        fix = "-p stop_action:=auto"
        raise QvlaError(
            "parameter stop_action", stop_action, f"an action that output {output} can express", fix
        )
    action: StopAction = stop_action  # type: ignore[assignment]
    return CommandForm(output, action, parameters.command_frame or actions.frame, joints, period_s)


def joint_trajectory(form: CommandForm, state: MotionState, now_ns: int) -> JointTrajectory:
    """One point, positions only, to be reached when the next command comes: the controller
    interpolates up to it.

    Stamped zero, which joint_trajectory_controller reads as "at once"; a stamp in the past could
    cost it the point.
    """
    nanoseconds = round(form.period_s * 1e9)
    point = JointTrajectoryPoint(positions=state.setpoint.linear.tolist())
    point.time_from_start = DurationMessage(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return JointTrajectory(joint_names=list(form.joints), points=[point])


def position_array(form: CommandForm, state: MotionState, now_ns: int) -> Float64MultiArray:
    """Joint positions alone, as forward and position group controllers take them."""
    return Float64MultiArray(data=state.setpoint.linear.tolist())


def pose(form: CommandForm, state: MotionState, now_ns: int) -> PoseStamped:
    """The end effector's pose in the form's frame."""
    message = PoseStamped()
    message.header.stamp = stamp_message(now_ns)
    message.header.frame_id = form.frame
    assert state.setpoint.quaternion_xyzw is not None
    place = message.pose.position
    turn = message.pose.orientation
    place.x, place.y, place.z = state.setpoint.linear.tolist()
    turn.x, turn.y, turn.z, turn.w = state.setpoint.quaternion_xyzw.tolist()
    return message


def twist(form: CommandForm, state: MotionState | None, now_ns: int) -> TwistStamped:
    """The end effector's velocity, m/s and rad/s, along the axes of the form's frame; zero without
    a state.
    """
    message = TwistStamped()
    message.header.stamp = stamp_message(now_ns)
    message.header.frame_id = form.frame
    if state is not None:
        linear = message.twist.linear
        angular = message.twist.angular
        linear.x, linear.y, linear.z = state.linear_velocity.tolist()
        angular.x, angular.y, angular.z = state.angular_velocity_rad_s.tolist()
    return message


_MESSAGES: Mapping[str, tuple[Any, Callable[..., Any]]] = {
    "joint_trajectory": (JointTrajectory, joint_trajectory),
    "position_array": (Float64MultiArray, position_array),
    "pose": (PoseStamped, pose),
    "twist": (TwistStamped, twist),
}


class CommandOutput:
    """Publishes commands of one form. Its calls come from one thread at a time."""

    def __init__(self, node: Node, form: CommandForm, topic: str) -> None:
        self.form = form
        self._node = node
        kind, self._message = _MESSAGES[form.output]
        self._publisher = node.create_publisher(kind, topic, **qos.published(qos.COMMAND))

    def send(self, state: MotionState, now_ns: int) -> None:
        """The next setpoint, or velocity, on the way."""
        self._publisher.publish(self._message(self.form, state, now_ns))

    def send_zero(self, now_ns: int) -> None:
        """A twist of zeros; positions have no such thing."""
        self._publisher.publish(twist(self.form, None, now_ns))

    def wait_for_acknowledgement(self, timeout_s: float) -> None:
        """Give the last command the time to arrive before the publisher goes."""
        self._publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)
