"""std_msgs/Float64MultiArray, as forward and position group controllers take it."""

from __future__ import annotations

from std_msgs.msg import Float64MultiArray

from qvla_ros.control.motion import MotionState
from qvla_ros.nodes.policy.outputs.form import CommandForm


def message(form: CommandForm, motion: MotionState, now_ns: int) -> Float64MultiArray:
    """Joint positions alone, rad, in the order of the form's joints."""
    return Float64MultiArray(data=motion.setpoint.linear.tolist())
