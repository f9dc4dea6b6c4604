"""A policy on a robot: `ros2 launch qvla robot.launch.py robot:=ur_servo bundle:=/path/to/bundle
namespace:=arm`.

Parameters come from config/<robot>.yaml, then params_file, then config/phases/<phase>.yaml, which
nothing overrides; topics from config/remaps/<robot>.yaml. The phase is dry_run unless told: nothing
is commanded. docs/bring_up.md says when to go on to the next one. Whatever the phase, the node
starts disarmed.
"""

from pathlib import Path

import yaml
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetParametersFromFile, SetRemap
from launch_ros.substitutions import FindPackageShare

ROBOTS = ["franka_jtc", "franka_cartesian", "ur_servo", "so101"]
PHASES = ["dry_run", "observe", "slow", "full"]
PASSED_ON = ("bundle", "namespace", "backend", "autostart", "dds_profile", "use_sim_time")


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("qvla"), *parts])


def policy(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """policy.launch.py with the robot's parameters and topics, which are known once the arguments
    are.
    """
    names = ("robot", "phase", "params_file", "remaps_file")
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    files = [share("config", f"{given['robot']}.yaml").perform(context)]
    if given["params_file"]:
        files.append(given["params_file"])
    if given["phase"] != "full":  # last: a file that raises a limit must not undo the phase
        files.append(share("config", "phases", f"{given['phase']}.yaml").perform(context))
    remaps_file = given["remaps_file"] or share(
        "config", "remaps", f"{given['robot']}.yaml"
    ).perform(context)
    remaps = yaml.safe_load(Path(remaps_file).read_text(encoding="utf-8"))
    # image_transport's compressed topics are separate topics to ROS, so they are remapped beside
    # the raw ones.
    remaps |= {
        f"{name}/compressed": f"{to}/compressed"
        for name, to in remaps.items()
        if name.startswith("camera/")
    }
    arguments = {name: LaunchConfiguration(name) for name in PASSED_ON}
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(share("launch", "policy.launch.py")),
        launch_arguments={**arguments, "params_file": files[-1]}.items(),
    )
    earlier = [SetParametersFromFile(file) for file in files[:-1]]
    return [GroupAction([*earlier, *(SetRemap(name, to) for name, to in remaps.items()), node])]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "robot", choices=ROBOTS, description="Whose config/<robot>.yaml and remaps are used"
            ),
            DeclareLaunchArgument(
                "bundle", description="Directory of the policy bundle (`qvla quantize` makes it)"
            ),
            DeclareLaunchArgument(
                "phase",
                default_value="dry_run",
                choices=PHASES,
                description="How far the bring-up is: dry_run commands nothing, full takes "
                "all of the robot's limits",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node, the arm's name"
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value="",
                description="YAML of parameters that override the robot's, not the phase's",
            ),
            DeclareLaunchArgument(
                "remaps_file",
                default_value="",
                description="YAML of relative name: topic; empty: config/remaps/<robot>.yaml",
            ),
            DeclareLaunchArgument(
                "backend",
                default_value="onnxruntime",
                choices=["onnxruntime", "tensorrt", "zero", "sine", "replay"],
                description="What runs the graph; zero, sine and replay are fakes for "
                "trying out the wiring",
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
                description="Fast DDS profile; the default carries images above 512 KiB "
                "without loss",
            ),
            OpaqueFunction(function=policy),
        ]
    )
