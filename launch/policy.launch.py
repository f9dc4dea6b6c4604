"""Launches one policy node.

    ros2 launch qvla policy.launch.py bundle:=/path/to/bundle namespace:=arm

Its inputs are camera/<name>/image_raw, joint_states, ee_pose and instruction in that namespace;
robot.launch.py gives it a robot's parameters and topics. It starts disarmed: `ros2 service call
/arm/policy/arm std_srvs/srv/SetBool '{data: true}'`.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from qvla_ros.engines import BACKENDS, backend_help

# The second is read by Fast DDS up to Jazzy.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("qvla"), *parts])


# The arguments that robot.launch.py and libero.launch.py pass on: they read this table.
ARGUMENTS = {
    "bundle": {"description": "Directory of the policy bundle (`qvla quantize` makes it)"},
    "namespace": {
        "default_value": "",
        "description": "Namespace of the node, e.g. the arm's name",
    },
    "backend": {
        "default_value": "onnxruntime",
        "choices": list(BACKENDS),
        "description": backend_help().capitalize(),
    },
    "autostart": {
        "default_value": "true",
        "choices": ["true", "false"],
        "description": "Configure and activate at start; false leaves it to a lifecycle manager",
    },
    "use_sim_time": {
        "default_value": "false",
        "choices": ["true", "false"],
        "description": "Take the time from /clock: for simulators and for bags played with --clock",
    },
    "prefix": {
        "default_value": "",
        "description": 'What the node is started by, e.g. "chrt -f 40" on a loaded machine',
    },
    "dds_profile": {
        "default_value": share("config", "fastdds.xml"),
        "description": "Fast DDS profile; the default carries images above 512 KiB without loss",
    },
}


def generate_launch_description() -> LaunchDescription:
    params_file = DeclareLaunchArgument(
        "params_file",
        default_value=share("config", "policy.yaml"),
        description="YAML with the node's parameters",
    )
    passed_on = [DeclareLaunchArgument(name, **given) for name, given in ARGUMENTS.items()]
    policy = LifecycleNode(
        package="qvla",
        executable="policy",
        name="policy",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        prefix=LaunchConfiguration("prefix"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "bundle": ParameterValue(LaunchConfiguration("bundle"), value_type=str),
                "backend": LaunchConfiguration("backend"),
                "autostart": LaunchConfiguration("autostart"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            },
        ],
    )
    profiles = [
        SetEnvironmentVariable(name, LaunchConfiguration("dds_profile"))
        for name in PROFILE_VARIABLES
    ]
    return LaunchDescription([*passed_on, params_file, *profiles, policy])
