"""geometry_msgs/TwistStamped, as MoveIt Servo takes it."""

from __future__ import annotations

from geometry_msgs.msg import TwistStamped

from qvla_ros.control.motion import MotionState
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.nodes.policy.outputs.form import CommandForm


def message(form: CommandForm, motion: MotionState, now_ns: int) -> TwistStamped:
    """The end effector's velocity, m/s and rad/s, along the axes of the form's frame."""
    made = TwistStamped()
    made.header.stamp = stamp_message(now_ns)
    made.header.frame_id = form.frame
    linear = made.twist.linear
    angular = made.twist.angular
    linear.x, linear.y, linear.z = motion.linear_velocity.tolist()
    angular.x, angular.y, angular.z = motion.angular_velocity_rad_s.tolist()
    return made
