"""Every parameter of the policy node, in one table: it declares, checks and documents them."""

from __future__ import annotations

from rclpy.parameter import Parameter

from qvla_ros.engines import BACKENDS
from qvla_ros.nodes.parameters import ParameterSpec, seconds
from qvla_ros.nodes.process import EXECUTORS

OUTPUTS = ("none", "joint_trajectory", "twist", "pose", "position_array")
GRIPPER_OUTPUTS = ("none", "position", "parallel_gripper_command")
STOP_ACTIONS = ("auto", "hold", "zero", "none")
_ARRAY = Parameter.Type.DOUBLE_ARRAY
_AXES = "one number an axis, or one for all"

MODEL = (
    ParameterSpec("bundle", "", "directory of the policy bundle"),
    ParameterSpec(
        "backend",
        "onnxruntime",
        "what runs the graph; zero, sine and replay are fakes",
        choices=tuple(BACKENDS),
    ),
    ParameterSpec(
        "engine_options", "{}", 'options of the backend, a JSON object such as {"threads": 2}'
    ),
    ParameterSpec(
        "autostart", True, "configure and activate at the start, without a lifecycle manager"
    ),
    ParameterSpec(
        "executor",
        "single_threaded",
        "what waits for messages; events: sooner, experimental",
        choices=EXECUTORS,
    ),
)

INPUTS = (
    seconds(
        "max_image_age_s",
        1.0,
        "oldest observation that is acted on, by its stamp and node time",
        minimum=1e-3,
    ),
    seconds("max_stamp_spread_s", 0.05, "largest difference between the stamps of one observation"),
    ParameterSpec(
        "image_transport",
        "raw",
        "which image topics are subscribed to",
        choices=("raw", "compressed"),
    ),
    ParameterSpec(
        "pose_source", "topic", "the end effector's pose: ee_pose, or TF", choices=("topic", "tf")
    ),
    ParameterSpec(
        "tool_frame", "", "with pose_source tf: the frame whose pose the policy was trained on"
    ),
    seconds("tf_timeout_s", 0.05, "how long a transform of an image's time is waited for"),
)

COMMANDS = (
    ParameterSpec(
        "output", "none", "what is sent to the robot; none: chunks alone", choices=OUTPUTS
    ),
    ParameterSpec("output_topic", "~/command", "where commands go"),
    ParameterSpec(
        "command_frame", "", "the robot's name for the frame of the actions; nothing is transformed"
    ),
    ParameterSpec(
        "joints",
        [],
        "joints in the order of the actions' columns",
        kind=Parameter.Type.STRING_ARRAY,
    ),
    ParameterSpec("control_hz", 100.0, "commands a second; 0: one per action", 0.0, 1000.0),
    ParameterSpec(
        "blend_steps", 2, "actions over which a new chunk takes over from the last", 0, 1000
    ),
    ParameterSpec(
        "linear_scale",
        0.0,
        "m (or rad of a joint) per unit of an action; 0: its units are SI",
        0.0,
        1e3,
    ),
    ParameterSpec(
        "angular_scale", 0.0, "rad per unit of a rotational action; 0: its units are SI", 0.0, 1e3
    ),
    ParameterSpec(
        "gripper_output", "none", "how the gripper is commanded", choices=GRIPPER_OUTPUTS
    ),
    ParameterSpec(
        "gripper_topic", "~/gripper_command", "topic or action that the gripper listens to"
    ),
    ParameterSpec(
        "gripper_joint", "", "joint that tells how open the gripper is; empty: it is not measured"
    ),
    ParameterSpec(
        "gripper_min", 0.0, "gripper command when closed, in the gripper's units", -1e6, 1e6
    ),
    ParameterSpec(
        "gripper_max", 1.0, "gripper command when open, in the gripper's units", -1e6, 1e6
    ),
)

LIMITS = (
    ParameterSpec(
        "linear_low",
        [],
        "lower corner of the workspace, m, or lower joint limits, rad",
        kind=_ARRAY,
    ),
    ParameterSpec(
        "linear_high",
        [],
        "upper corner of the workspace, m, or upper joint limits, rad",
        kind=_ARRAY,
    ),
    ParameterSpec("max_linear_step", [0.02], f"m or rad a command may move the setpoint; {_AXES}"),
    ParameterSpec("max_linear_velocity", [0.25], f"m/s or rad/s; {_AXES}"),
    ParameterSpec("max_linear_acceleration", [1.0], f"m/s^2 or rad/s^2; {_AXES}"),
    ParameterSpec(
        "max_angular_step_rad", 0.05, "how far a command may turn the setpoint", 1e-6, 3.2
    ),
    ParameterSpec("max_angular_velocity_rad_s", 0.5, "rotation of the end effector", 1e-6, 100.0),
    ParameterSpec(
        "max_angular_acceleration_rad_s2", 2.0, "rotation of the end effector", 1e-6, 1e4
    ),
)

WATCHDOGS = (
    seconds("inference_timeout_s", 5.0, "an inference that takes longer is a fault", minimum=1e-3),
    seconds(
        "max_command_age_s",
        0.5,
        "how long past its last action a plan is held before the arm is stopped",
        minimum=1e-3,
    ),
    ParameterSpec(
        "max_linear_lead", 0.1, "m or rad a command may lead the measured arm, per axis", 1e-6, 1e3
    ),
    ParameterSpec(
        "max_angular_lead_rad",
        0.3,
        "how far a command may be turned from the measured arm",
        1e-6,
        7.0,
    ),
    seconds(
        "max_clock_jump_s",
        0.5,
        "node time may part from the steady clock by this much",
        minimum=1e-3,
    ),
    ParameterSpec("deadman", False, "send commands only while ~/enable (std_msgs/Bool) says true"),
    seconds("deadman_timeout_s", 0.3, "oldest ~/enable that counts", minimum=1e-3),
    ParameterSpec("stop_action", "auto", "auto: zero for twist, else hold", choices=STOP_ACTIONS),
)

PARAMETERS = (*MODEL, *INPUTS, *COMMANDS, *LIMITS, *WATCHDOGS)
