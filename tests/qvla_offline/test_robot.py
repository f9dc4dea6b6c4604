"""A robot file that no bundle could be made of is refused when read, by its name and keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qvla_offline.robot import LIBERO, read_robot
from qvla_ros.errors import QvlaError

EXAMPLE = Path(__file__).parents[2] / "config" / "robots" / "libero" / "trained_on.yaml"

Edit = Callable[[dict[str, Any]], object]


def edited(path: Path, edit: Edit) -> Path:
    content = yaml.safe_load(EXAMPLE.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("key", "edit"),
    [
        ("actions.kind", lambda robot: robot["actions"].update(kind="joint_postion")),
        ("actions.units", lambda robot: robot["actions"]["units"].pop()),
        ("actions.units", lambda robot: robot["actions"].update(units=["mm"] * 7)),
        ("actions.units", lambda robot: robot["actions"].update(units=["rad"] * 7)),
        ("actions.units", lambda robot: robot["actions"]["units"].__setitem__(0, "m")),
        (
            "actions.names",
            lambda robot: robot["actions"].update(
                kind="end_effector_pose", gripper_index=None, gripper_convention=None
            ),
        ),
        ("actions.names", lambda robot: robot["actions"]["names"].__setitem__(0, "gripper")),
        ("actions.gripper_index", lambda robot: robot["actions"].update(gripper_index=9)),
        (
            "actions.gripper_convention",
            lambda robot: robot["actions"].update(gripper_convention=None),
        ),
        ("actions.control_period_s", lambda robot: robot["actions"].update(control_period_s=0)),
        ("actions.limits", lambda robot: robot["actions"]["limits"].pop()),
        ("actions.limits", lambda robot: robot["actions"]["limits"].__setitem__(0, [1, -1])),
        ("center_crop_area", lambda robot: robot.update(center_crop_area=1.5)),
        ("jpeg_quality", lambda robot: robot.update(jpeg_quality=0)),
        ("bicubic_size", lambda robot: robot.update(bicubic_size=0)),
        ("camera 'agentview'.height", lambda robot: robot["cameras"][0].update(height=0)),
        ("camera 'a b'.name", lambda robot: robot["cameras"][0].update(name="a b")),
        ("cameras", lambda robot: robot["cameras"][0].update(name="wrist")),
        ("cameras", lambda robot: robot.update(cameras=[])),
        ("proprioception.names", lambda robot: robot["proprioception"].__setitem__(0, "eef_y")),
    ],
)
def test_a_value_out_of_range_is_named_by_the_file_that_is_to_be_corrected(
    tmp_path: Path, key: str, edit: Edit
) -> None:
    path = edited(tmp_path / "robot.yaml", edit)
    with pytest.raises(QvlaError, match=f"^{re.escape(f'{path}: {key}')}: got ") as caught:
        read_robot(path)
    assert caught.value.fix.startswith("correct it there")


def test_a_robot_without_proprioception_is_read(tmp_path: Path) -> None:
    robot = read_robot(
        edited(tmp_path / "robot.yaml", lambda robot: robot.update(proprioception=[]))
    )
    assert (robot.proprioception, robot.cameras) == ((), LIBERO.cameras)


def test_a_robots_folder_stands_for_the_description_in_it() -> None:
    assert read_robot(EXAMPLE.parent) == read_robot(EXAMPLE) == LIBERO


def test_a_folder_without_a_description_is_refused_by_the_file_that_it_lacks(
    tmp_path: Path,
) -> None:
    with pytest.raises(QvlaError, match="trained_on.yaml") as caught:
        read_robot(tmp_path)
    assert "config/robots/libero/trained_on.yaml" in caught.value.fix
