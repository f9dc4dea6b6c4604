"""One policy node: `ros2 launch qvla policy.launch.py bundle:=/path/to/bundle namespace:=arm`.

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

from qvla_ros.engines import BACKENDS


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("qvla"), *parts])


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "bundle", description="Directory of the policy bundle (`qvla quantize` makes it)"
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node, e.g. the arm's name"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=share("config", "policy.yaml"),
            description="YAML with the node's parameters",
        ),
        DeclareLaunchArgument(
            "backend",
            default_value="onnxruntime",
            choices=list(BACKENDS),
            description="What runs the graph; zero, sine and replay are fakes for trying "
            "out the wiring",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=["true", "false"],
            description="Configure and activate at the start; false leaves it to a "
            "lifecycle manager",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=["true", "false"],
            description="Take the time from /clock: for simulators and for bags played "
            "with --clock",
        ),
        DeclareLaunchArgument(
            "dds_profile",
            default_value=share("config", "fastdds.xml"),
            description="Fast DDS profile; the default carries images above 512 KiB without loss",
        ),
    ]
    policy = LifecycleNode(
        package="qvla",
        executable="policy",
        name="policy",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
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
    variables = (
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
    )  # the second: up to Jazzy
    profiles = [
        SetEnvironmentVariable(name, LaunchConfiguration("dds_profile")) for name in variables
    ]
    return LaunchDescription([*arguments, *profiles, policy])
