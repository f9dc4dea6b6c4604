"""geometry_msgs/PoseStamped, as Cartesian motion controllers take it."""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped

from qvla_ros.control.motion import MotionState
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.nodes.policy.outputs.form import CommandForm


def message(form: CommandForm, motion: MotionState, now_ns: int) -> PoseStamped:
    """The end effector's pose in the form's frame, m and a unit quaternion."""
    return pose_message(motion.setpoint, form.frame, now_ns)


def pose_message(setpoint: Setpoint, frame: str, stamp_ns: int) -> PoseStamped:
    """A setpoint that has an orientation, as a pose in `frame`."""
    made = PoseStamped()
    made.header.stamp = stamp_message(stamp_ns)
    made.header.frame_id = frame
    place = made.pose.position
    turn = made.pose.orientation
    assert setpoint.quaternion_xyzw is not None
    place.x, place.y, place.z = setpoint.linear.tolist()
    turn.x, turn.y, turn.z, turn.w = setpoint.quaternion_xyzw.tolist()
    return made
