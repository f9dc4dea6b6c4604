"""Shows what the policy is about to do in RViz and Foxglove.

It is a path of the end effector, or a trajectory of the joints.

For people only: it is the plan as it is, before blending with later chunks and before the limits of
the safety chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration as DurationMessage
from nav_msgs.msg import Path
from numpy.typing import NDArray
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qvla_ros.control.setpoint import MotionSpec, Setpoint, advance
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.nodes.policy.outputs.pose import pose_message


def predicted_setpoints(
    measured: Setpoint, upcoming: NDArray[np.float64], spec: MotionSpec
) -> list[Setpoint]:
    """Predicts where the arm would be after each of the upcoming actions [m, A].

    Returns m + 1 setpoints, of which the first is where the arm was measured. The first action may
    be carried out in part already: a delta kind's path is then off by up to that one action.
    """
    setpoints = [measured]
    for action in upcoming:
        setpoints.append(advance(setpoints[-1], action, spec, 1.0))
    return setpoints


def path_message(setpoints: Sequence[Setpoint], frame: str, now_ns: int, step_dt_s: float) -> Path:
    """Poses in `frame`, each stamped with the time that it is planned for."""
    message = Path()
    message.header.stamp = stamp_message(now_ns)
    message.header.frame_id = frame
    message.poses = [
        pose_message(setpoint, frame, now_ns + round(index * step_dt_s * 1e9))
        for index, setpoint in enumerate(setpoints)
    ]
    return message


def trajectory_message(
    setpoints: Sequence[Setpoint], joints: Sequence[str], now_ns: int, step_dt_s: float
) -> JointTrajectory:
    """Joint positions, each with the time from now that it is planned for."""
    message = JointTrajectory(joint_names=list(joints))
    message.header.stamp = stamp_message(now_ns)
    for index, setpoint in enumerate(setpoints):
        seconds, nanoseconds = divmod(round(index * step_dt_s * 1e9), 10**9)
        point = JointTrajectoryPoint(positions=setpoint.linear.tolist())
        point.time_from_start = DurationMessage(sec=seconds, nanosec=nanoseconds)
        message.points.append(point)
    return message


class PlanDisplay:
    """Publishes `~/predicted_path`, or `~/predicted_trajectory` of joint kinds, if any listens."""

    def __init__(
        self, node: Node, spec: MotionSpec, frame: str, joints: Sequence[str], step_dt_s: float
    ) -> None:
        self._node = node
        self._spec = spec
        self._frame = frame
        self._joints = tuple(joints)
        self._step_dt_s = step_dt_s
        kind, topic = (
            (Path, "~/predicted_path")
            if spec.is_pose
            else (JointTrajectory, "~/predicted_trajectory")
        )
        self._publisher: Any = node.create_publisher(
            kind, topic, qos.COMMAND, event_callbacks=qos.NO_PUBLISHER_EVENTS
        )

    @property
    def wanted(self) -> bool:
        """Whether any subscriber listens."""
        return self._publisher.get_subscription_count() > 0

    def show(self, measured: Setpoint, upcoming: NDArray[np.float64]) -> None:
        """The plan [m, A] from here on; an empty one clears the display."""
        setpoints = predicted_setpoints(measured, upcoming, self._spec) if len(upcoming) else []
        now_ns = self._node.get_clock().now().nanoseconds
        if self._spec.is_pose:
            self._publisher.publish(path_message(setpoints, self._frame, now_ns, self._step_dt_s))
        else:
            self._publisher.publish(
                trajectory_message(setpoints, self._joints, now_ns, self._step_dt_s)
            )

    def destroy(self) -> None:
        self._node.destroy_publisher(self._publisher)
