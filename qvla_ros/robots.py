"""Robots are folders: node.yaml holds the policy node's parameters, remaps.yaml the robot's topics.

Those in config/robots go by their names, any other one by its path.
"""

from __future__ import annotations

from pathlib import Path

from qvla_ros.errors import QvlaError
from qvla_ros.resources import share_path
from qvla_ros.yaml_file import read_yaml

ROBOTS = "config/robots"


def robot_names() -> list[str]:
    """Lists the robots in config/robots that can be launched.

    LIBERO's cannot: its bridge needs no remaps.
    """
    return sorted(folder.name for folder in share_path(ROBOTS).iterdir() if _is_robot(folder))


def robot_folder(robot: str) -> Path:
    """Finds a robot's folder by its name in config/robots, or by its path.

    Raises QvlaError unless it has node.yaml and remaps.yaml.
    """
    names = robot_names()
    folder = share_path(ROBOTS) / robot if robot in names else Path(robot).expanduser()
    if not _is_robot(folder):
        expected = f"{', '.join(names)}, or a folder with node.yaml and remaps.yaml"
        fix = "name one of them, or copy the folder of the most similar one and give its path"
        raise QvlaError("robot", robot, expected, fix)
    return folder


def read_remaps(path: Path, key: str = "remaps_file") -> dict[str, str]:
    """Reads a remaps.yaml: relative name of the node -> topic of the robot. Else QvlaError(key)."""
    fix = f"write it as {ROBOTS}/*/remaps.yaml"
    remaps = read_yaml(path, key, fix)
    if not isinstance(remaps, dict) or not all(
        isinstance(text, str) for pair in remaps.items() for text in pair
    ):
        raise QvlaError(key, f"{path}: {remaps}", "a name: topic a line", fix)
    return remaps


def _is_robot(folder: Path) -> bool:
    return (folder / "node.yaml").is_file() and (folder / "remaps.yaml").is_file()
