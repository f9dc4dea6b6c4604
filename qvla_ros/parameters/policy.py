"""Every parameter of the policy node, written once: it declares, checks and documents them."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_ros.control.limits import STOP_DECELERATION
from qvla_ros.control.outputs import OUTPUTS, gripper_output_names, output_names
from qvla_ros.engines import BACKENDS, backend_help
from qvla_ros.parameters.table import options, parameter, seconds

EXECUTORS = ("single_threaded", "events")
STOP_ACTIONS = ("auto", "hold", "zero", "none")
_ZEROED = ", ".join(name for name, each in OUTPUTS.items() if each.stop_actions[0] == "zero")
_AXES = "one number an axis, or one for all"


@dataclass(frozen=True)
class ModelParameters:
    """Which policy runs, and on what."""

    bundle: str = parameter("", "directory of the policy bundle")
    backend: str = parameter("onnxruntime", backend_help(), choices=BACKENDS)
    engine_options: dict[str, object] = options(
        "options of the backend, a parameter each: engine_options.threads: 2"
    )
    autostart: bool = parameter(
        True, "configure and activate at the start, without a lifecycle manager"
    )
    executor: str = parameter(
        "single_threaded",
        "what waits for messages; events: sooner, experimental",
        choices=EXECUTORS,
    )


@dataclass(frozen=True)
class InputParameters:
    """Parameters of what is read of cameras and robot, and how old it may be."""

    max_image_age_s: float = seconds(
        1.0, "oldest image, joint state or pose that is acted on, by its stamp", minimum=1e-3
    )
    max_stamp_spread_s: float = seconds(
        0.05, "largest difference between the stamps of one observation"
    )
    max_equal_images: int = parameter(
        10,
        "images in a row of the same bytes that are taken while the commanded arm moves; 0: any "
        "number",
        0,
        100000,
    )
    image_transport: str = parameter(
        "raw", "which image topics are subscribed to", choices=("raw", "compressed")
    )
    pose_source: str = parameter(
        "topic", "the end effector's pose: ee_pose, or TF", choices=("topic", "tf")
    )
    tool_frame: str = parameter(
        "", "with pose_source tf: the frame whose pose the policy was trained on"
    )
    tf_timeout_s: float = seconds(0.05, "how long a transform of an image's time is waited for")


@dataclass(frozen=True)
class CommandParameters:
    """Parameters of what is sent to the robot, where and how often."""

    output: str = parameter(
        "none", "what is sent to the robot; none: chunks alone", choices=output_names
    )
    output_topic: str = parameter("~/command", "where commands go")
    command_frame: str = parameter(
        "", "the robot's name for the frame of the actions; nothing is transformed"
    )
    joints: tuple[str, ...] = parameter((), "joints in the order of the actions' columns")
    control_hz: float = parameter(100.0, "commands a second; 0: one per action", 0.0, 1000.0)
    look_ahead_s: float = seconds(
        0.0,
        "how far ahead of their time trajectories are sent; 0: a period and 0.05 s, or two periods",
    )
    trajectory_velocities: bool = parameter(
        True, "trajectories have velocities; false for controllers that take positions alone"
    )
    blend_steps: int = parameter(
        2, "actions over which a new chunk takes over from the last", 0, 1000
    )
    linear_scale: float = parameter(
        0.0, "m (or rad of a joint) per unit of an action; 0: its units are SI", 0.0, 1e3
    )
    angular_scale: float = parameter(
        0.0, "rad per unit of a rotational action; 0: its units are SI", 0.0, 1e3
    )
    gripper_output: str = parameter(
        "none", "how the gripper is commanded", choices=gripper_output_names
    )
    gripper_topic: str = parameter(
        "~/gripper_command", "topic or action that the gripper listens to"
    )
    gripper_joint: str = parameter(
        "", "joint that tells how open the gripper is; empty: it is not measured"
    )
    gripper_min: float = parameter(
        0.0, "gripper command when closed, in the gripper's units", -1e6, 1e6
    )
    gripper_max: float = parameter(
        1.0, "gripper command when open, in the gripper's units", -1e6, 1e6
    )


@dataclass(frozen=True)
class MotionLimitParameters:
    """Limits that no command may exceed, named as in qvla_ros.control.limits.motion_limits."""

    linear_low: tuple[float, ...] = parameter(
        (), "lower corner of the workspace, m, or lower joint limits, rad"
    )
    linear_high: tuple[float, ...] = parameter(
        (), "upper corner of the workspace, m, or upper joint limits, rad"
    )
    max_linear_step: tuple[float, ...] = parameter(
        (0.02,), f"m or rad a command may move the setpoint; {_AXES}"
    )
    max_linear_velocity: tuple[float, ...] = parameter((0.25,), f"m/s or rad/s; {_AXES}")
    max_linear_acceleration: tuple[float, ...] = parameter((1.0,), f"m/s^2 or rad/s^2; {_AXES}")
    max_angular_step_rad: float = parameter(
        0.05, "how far a command may turn the setpoint", 1e-6, 3.2
    )
    max_angular_velocity_rad_s: float = parameter(0.5, "rotation of the end effector", 1e-6, 100.0)
    max_angular_acceleration_rad_s2: float = parameter(
        2.0, "rotation of the end effector", 1e-6, 1e4
    )


@dataclass(frozen=True)
class WatchdogParameters:
    """When the arm is stopped, and how."""

    inference_timeout_s: float = seconds(
        5.0, "an inference that takes longer is a fault", minimum=1e-3
    )
    max_command_age_s: float = seconds(
        0.5, "how long past its last action a plan is held before the arm is stopped", minimum=1e-3
    )
    max_linear_lead: float = parameter(
        0.1, "m or rad a command may lead the measured arm, per axis", 1e-6, 1e3
    )
    max_angular_lead_rad: float = parameter(
        0.3, "how far a command may be turned from the measured arm", 1e-6, 7.0
    )
    measured_velocity_margin: float = parameter(
        3.0,
        "times the velocity limits that the arm may be seen to move at before its state is not "
        "believed",
        1.0,
        1e6,
    )
    reaction_time_s: float = seconds(
        0.2,
        "with velocities: from a command to when the measured pose shows it, the age of the pose "
        "and the lag of the arm together; too long is slow near walls, too short leaves the box",
    )
    following_window_s: float = seconds(
        0.5,
        "with velocities: over this time the arm must make the way that it is sent, or it is "
        "stopped; 0: unwatched",
    )
    ready_topic: str = parameter(
        "", "std_msgs/Bool, latched: the robot takes commands; empty: nobody says so"
    )
    max_clock_jump_s: float = seconds(
        0.5, "node time may part from the steady clock by this much", minimum=1e-3
    )
    max_stall_s: float = seconds(
        0.25,
        "how long this process may stand still before it stops the arm; deadman_timeout_s where "
        "that is shorter",
        minimum=1e-3,
    )
    max_idle_s: float = seconds(
        60.0, "how long the arm stays armed before the first plan", minimum=1e-3
    )
    sole_publishers: bool = parameter(
        True,
        "refuse to arm, and stop, while a camera, ~/enable, ready_topic or a command topic has a "
        "second publisher",
    )
    require_known_state: bool = parameter(
        True, "refuse to arm where the robot's state is far outside the training data's"
    )
    deadman: bool = parameter(False, "send commands only while ~/enable (std_msgs/Bool) says true")
    deadman_timeout_s: float = seconds(0.3, "oldest ~/enable that counts", minimum=1e-3)
    stop_action: str = parameter(
        "auto",
        f"what a stop brakes to; auto: zero for {_ZEROED}, else hold",
        choices=STOP_ACTIONS,
    )
    max_stop_deceleration: tuple[float, ...] = parameter(
        (),
        "m/s^2 or rad/s^2, how hard a stop brakes, at least max_linear_acceleration; empty: "
        f"{STOP_DECELERATION:g} times that; {_AXES}",
    )
    max_stop_angular_deceleration_rad_s2: float = parameter(
        0.0,
        "how hard a stop brakes rotation, at least max_angular_acceleration_rad_s2; 0: "
        f"{STOP_DECELERATION:g} times that",
        0.0,
        1e4,
    )


@dataclass(frozen=True)
class PolicyParameters:
    """All of the policy node's. use_sim_time is ROS's own, which rclpy declares."""

    model: ModelParameters = ModelParameters()
    inputs: InputParameters = InputParameters()
    commands: CommandParameters = CommandParameters()
    limits: MotionLimitParameters = MotionLimitParameters()
    watchdogs: WatchdogParameters = WatchdogParameters()
    use_sim_time: bool = False
