"""trajectory_msgs/JointTrajectory, as joint_trajectory_controller takes it."""

from __future__ import annotations

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qvla_ros.control.course import Trajectory
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.nodes.policy.outputs.form import CommandForm


def message(form: CommandForm, trajectory: Trajectory, now_ns: int) -> JointTrajectory:
    """The course from a period ago, which is its stamp, to rest.

    The controller finds itself within it by its own clock, whenever the message comes, so that
    clock must agree with this node's.
    """
    period_ns = round(1e9 * form.period_s)
    offsets_ns = [round(1e9 * time_s) + period_ns for time_s in trajectory.times_s.tolist()]
    positions = trajectory.positions.tolist()
    velocities = trajectory.velocities.tolist()
    made = JointTrajectory(joint_names=list(form.joints))
    made.header.stamp = stamp_message(now_ns - period_ns)
    made.header.frame_id = form.frame
    for index, offset_ns in enumerate(offsets_ns):
        point = JointTrajectoryPoint(positions=positions[index])
        if form.with_velocities:
            point.velocities = velocities[index]
        after_ns = max(offset_ns, 0)
        point.time_from_start = Duration(sec=after_ns // 10**9, nanosec=after_ns % 10**9)
        made.points.append(point)
    return made
