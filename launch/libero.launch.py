"""Launches a policy and the LIBERO arm.

    ros2 launch qvla libero.launch.py bundle:=/path/to/bundle task_ids:='[0, 1]'

The bridge prints one JSON line an episode; the launch ends with it. `qvla eval` compares several
policies.
"""

import runpy
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from qvla_ros.simulation.specification import SUITE_TASK_COUNTS

POLICY = "policy_under_test"  # the namespace in which bridge and policy meet


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("qvla"), *parts])


def arguments() -> list[DeclareLaunchArgument]:
    passed_on = runpy.run_path(str(Path(__file__).with_name("policy.launch.py")))["ARGUMENTS"]
    return [
        DeclareLaunchArgument("bundle", **passed_on["bundle"]),
        DeclareLaunchArgument("backend", **passed_on["backend"]),
        DeclareLaunchArgument(
            "params_file",
            default_value=share("config", "robots", "libero", "node.yaml"),
            description="YAML with the parameters of both nodes",
        ),
        DeclareLaunchArgument(
            "task_suite_name",
            default_value="libero_object",
            choices=list(SUITE_TASK_COUNTS),
            description="LIBERO suite",
        ),
        DeclareLaunchArgument(
            "task_ids", default_value="[0]", description="Tasks of the suite, a YAML list"
        ),
        DeclareLaunchArgument(
            "num_trials_per_task", default_value="1", description="Episodes of each task"
        ),
        DeclareLaunchArgument(
            "timing",
            default_value="lock_step",
            choices=["lock_step", "real_time"],
            description="Whether the arm waits for the policy; real_time runs on the simulated "
            "clock, /clock",
        ),
        DeclareLaunchArgument(
            "latencies_s",
            default_value="[-1.0]",
            description="With real_time: from image to command, each in turn, a YAML list; -1.0: "
            "as measured",
        ),
        DeclareLaunchArgument(
            "faults",
            default_value="['']",
            description="With real_time: what goes wrong when, a YAML list, e.g. "
            "['drop_camera:wrist@2+0.5']",
        ),
        DeclareLaunchArgument(
            "output_dir", default_value="", description="Where episodes.jsonl goes; empty: nowhere"
        ),
        DeclareLaunchArgument(
            "video_dir", default_value="", description="Where a video goes; empty: nowhere"
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(share("launch", "policy.launch.py")),
        launch_arguments={
            "bundle": LaunchConfiguration("bundle"),
            "namespace": POLICY,
            "backend": LaunchConfiguration("backend"),
            "params_file": LaunchConfiguration("params_file"),
            "use_sim_time": PythonExpression(
                ["'true' if '", LaunchConfiguration("timing"), "' == 'real_time' else 'false'"]
            ),
        }.items(),
    )
    bridge = Node(
        package="qvla",
        executable="libero_bridge",
        name="libero_bridge",
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "policies": [POLICY],
                "task_suite_name": LaunchConfiguration("task_suite_name"),
                "task_ids": LaunchConfiguration("task_ids"),  # read as YAML: a list of integers
                "num_trials_per_task": LaunchConfiguration("num_trials_per_task"),
                "timing": LaunchConfiguration("timing"),
                "latencies_s": LaunchConfiguration("latencies_s"),
                "faults": LaunchConfiguration("faults"),
                "output_dir": ParameterValue(LaunchConfiguration("output_dir"), value_type=str),
                "video_dir": ParameterValue(LaunchConfiguration("video_dir"), value_type=str),
            },
        ],
        on_exit=Shutdown(reason="the bridge has ended"),
    )
    return LaunchDescription([*arguments(), policy, bridge])
