"""A robot's folder is found by its name or path, and what is wrong with its files is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.resources import share_path
from qvla_ros.robots import read_remaps, robot_folder, robot_names


def test_a_robot_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert robot_folder("ur_servo") == share_path("config/robots/ur_servo")
    for name in ("node.yaml", "remaps.yaml"):
        with pytest.raises(QvlaError, match=r"robot: got .*; expected franka_cartesian, "):
            robot_folder(str(tmp_path))
        (tmp_path / name).write_text("{}")
    assert robot_folder(str(tmp_path)) == tmp_path
    assert "libero" not in robot_names()


def test_the_remaps_of_every_robot_are_read() -> None:
    for name in robot_names():
        remaps = read_remaps(robot_folder(name) / "remaps.yaml")
        assert remaps
        assert all(topic.startswith("/") for topic in remaps.values())


@pytest.mark.parametrize("text", ["- a\n", "joint_states: 3\n", "a: [", ""])
def test_a_file_that_is_no_map_of_names_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "remaps.yaml").write_text(text)
    with pytest.raises(QvlaError, match="remaps_file") as caught:
        read_remaps(tmp_path / "remaps.yaml")
    assert "config/robots/*/remaps.yaml" in caught.value.fix
