"""Makes ROS messages of a simulated arm's observation: joint states, pose and images."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image, JointState

from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.specification import FINGER_NAMES, JOINT_NAMES, POSE_FRAME


def joint_state_message(observation: LiberoObservation, stamp: Time) -> JointState:
    """Arm joints in radians, then fingers in metres."""
    message = JointState(name=[*JOINT_NAMES, *FINGER_NAMES])
    message.header.stamp = stamp
    message.position = [
        *map(float, observation.joint_positions_rad),
        *map(float, observation.gripper_positions_m),
    ]
    return message


def pose_message(observation: LiberoObservation, stamp: Time) -> PoseStamped:
    """The end effector in POSE_FRAME."""
    message = PoseStamped()
    message.header.stamp = stamp
    message.header.frame_id = POSE_FRAME
    position = message.pose.position
    rotation = message.pose.orientation
    position.x, position.y, position.z = map(float, observation.eef_position_m)
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, observation.eef_quaternion_xyzw)
    return message


def image_message(camera: str, pixels: NDArray[np.uint8], stamp: Time) -> Image:
    """An image uint8 [H, W, 3] as rgb8, not turned; the camera's name is the frame."""
    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding="rgb8", step=width * channels)
    message.header.stamp = stamp
    message.header.frame_id = camera
    message.data = array.array("B", pixels.tobytes())
    return message
