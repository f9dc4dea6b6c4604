"""The names, units and limits of LIBERO's arm, for the bridge and for the export."""

from __future__ import annotations

from qvla_ros.simulation import named_object

CONTROL_PERIOD_S = 0.05
SUITE_TASK_COUNTS = {
    "libero_spatial": 10,
    "libero_object": 10,
    "libero_goal": 10,
    "libero_10": 10,
    "libero_90": 90,
    named_object.SUITE: 10 * named_object.OTHERS_A_SCENE,
}

# Step limits of a family's own evaluation, where they are not OpenVLA's
# (qvla_ros.simulation.libero): family -> suite -> steps.
MAX_STEPS_OF_FAMILY = {
    "univla": {
        "libero_spatial": 240,
        "libero_object": 300,
        "libero_goal": 320,
        "libero_10": 550,
        "libero_90": 420,
    },
}

CAMERA_NAMES = ("agentview", "wrist")
JOINT_NAMES = tuple(f"joint{i}" for i in range(1, 8))  # radians
FINGER_NAMES = ("finger_joint1", "finger_joint2")  # metres; one positive, the other negative
# robosuite reports the end effector in its world frame; the released data and policies use it as it
# is.
POSE_FRAME = "world"

# The 8 numbers of the released state vector, as qvla_ros.observation.proprioception_vector knows
# them.
PROPRIOCEPTION_NAMES = (
    *("eef_x", "eef_y", "eef_z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z"),
    *FINGER_NAMES,
)

# OSC_POSE: deltas along and about the axes of the world frame, in controller units; then gripper.
METRES_PER_UNIT = 0.05
RADIANS_PER_UNIT = 0.5
ACTION_KIND = "delta_end_effector_pose"
ACTION_NAMES = (
    *("delta_x", "delta_y", "delta_z"),
    *("delta_axis_angle_x", "delta_axis_angle_y", "delta_axis_angle_z"),
    "gripper",
)
ACTION_UNITS = ("controller_unit",) * 6 + ("opening_fraction",)
ACTION_LIMITS = ((-1.0, 1.0),) * 6 + ((0.0, 1.0),)
GRIPPER_INDEX = 6
