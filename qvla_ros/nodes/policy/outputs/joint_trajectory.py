"""trajectory_msgs/JointTrajectory, as joint_trajectory_controller takes it."""

from __future__ import annotations

from builtin_interfaces.msg import Duration
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qvla_ros.control.motion import MotionState
from qvla_ros.nodes.policy.outputs.form import CommandForm


def message(form: CommandForm, motion: MotionState, now_ns: int) -> JointTrajectory:
    """Commands one point, positions only, to be reached when the next command comes.

    The controller interpolates up to it. On simulated time a command may cover several periods, and
    the point is then so much later.

    Stamped zero, which joint_trajectory_controller reads as "at once"; a stamp in the past could
    cost it the point.
    """
    nanoseconds = round(max(form.period_s, motion.dt_s) * 1e9)
    point = JointTrajectoryPoint(positions=motion.setpoint.linear.tolist())
    point.time_from_start = Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return JointTrajectory(joint_names=list(form.joints), points=[point])
