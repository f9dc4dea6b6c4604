"""Launches a policy on a robot.

    ros2 launch qvla robot.launch.py robot:=ur_servo bundle:=/path/to/bundle namespace:=arm

A robot is a folder: node.yaml holds its parameters, remaps.yaml its topics. Those in config/robots
go by their names; robot:= takes the path of another one as well. Parameters come from node.yaml,
then params_file, then config/phases/<phase>.yaml, which nothing overrides. The default phase,
dry_run, commands nothing; docs/bring_up.md names the condition for the next one. In every phase the
node starts disarmed.
"""

import runpy
from pathlib import Path

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

from qvla_ros.robots import read_remaps, robot_folder, robot_names

PHASES = ["dry_run", "observe", "slow", "full"]
# A launch file is no module, so its table of arguments is read by running it.
PASSED_ON = runpy.run_path(str(Path(__file__).with_name("policy.launch.py")))["ARGUMENTS"]


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("qvla"), *parts])


def policy(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Includes policy.launch.py with the robot's parameters and topics.

    Runs once the arguments are known.
    """
    names = ("robot", "phase", "params_file", "remaps_file")
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    folder = robot_folder(given["robot"])
    files = [str(folder / "node.yaml")]
    if given["params_file"]:
        files.append(given["params_file"])
    if given["phase"] != "full":  # last: a file that raises a limit must not undo the phase
        files.append(share("config", "phases", f"{given['phase']}.yaml").perform(context))
    remaps = read_remaps(Path(given["remaps_file"] or folder / "remaps.yaml"))
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
    chosen = [
        DeclareLaunchArgument(
            "robot", description=f"{', '.join(robot_names())}, or the path of a folder like theirs"
        ),
        DeclareLaunchArgument(
            "phase",
            default_value="dry_run",
            choices=PHASES,
            description="How far the bring-up is: dry_run commands nothing, full takes all of the "
            "robot's limits",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="YAML of parameters that override the robot's, not the phase's",
        ),
        DeclareLaunchArgument(
            "remaps_file",
            default_value="",
            description="YAML of relative name: topic; empty: the robot's remaps.yaml",
        ),
    ]
    passed_on = [DeclareLaunchArgument(name, **given) for name, given in PASSED_ON.items()]
    return LaunchDescription([*chosen, *passed_on, OpaqueFunction(function=policy)])
