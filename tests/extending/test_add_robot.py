"""docs/how_to/add_robot.md, followed to the letter with its own example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qvla_ros.evaluation.processes import start as start_process
from qvla_ros.evaluation.processes import stopped_at_the_end
from tests.extending.page import read_page
from tests.test_launch_files import (  # the fixture stands in for ROS 2's own launch
    included_arguments,
    of,
    recorded_launch,  # noqa: F401
    robot_policy,
)

if TYPE_CHECKING:
    from tests.qvla_ros.nodes.conftest import Robot

PAGE = read_page("add_robot")


def test_the_page_needs_no_code() -> None:
    assert {block.language for block in PAGE.files} == {"yaml"}
    assert not PAGE.registrations


def test_a_robot_added_from_the_page_is_launched_and_waits_for_its_own_topics(
    checkout: Path, ros_environment: dict[str, str], robot: Robot, tmp_path: Path
) -> None:
    printed = PAGE.follow(checkout)
    assert "my_arm_base" in printed  # its frame is in the bundle
    folder = checkout / "config" / "robots" / "my_arm"
    group = robot_policy(robot=str(folder))
    remaps = [f"{name}:={topic}" for name, topic in (each.args for each in of("SetRemap", group))]
    arguments = ["-m", "qvla_ros.nodes.policy", "--ros-args", "-r", "__ns:=/x"]
    for remap in remaps:
        arguments += ["-r", remap]
    arguments += ["--params-file", included_arguments(group)["params_file"]]
    arguments += ["-p", f"bundle:={checkout / 'out' / 'toy' / 'bundle'}"]
    node = start_process("policy", arguments, ros_environment, tmp_path)
    with stopped_at_the_end([node]):
        robot.wait_for_reason("/front_camera/image_raw")
        assert robot.node.count_publishers("/my_arm/target_pose") == 1
        assert robot.node.count_subscribers("/my_arm/pose") == 1


@pytest.mark.parametrize("missing", ["node.yaml", "remaps.yaml"])
def test_a_robot_that_lacks_a_file_is_refused(checkout: Path, missing: str) -> None:
    PAGE.apply(checkout)
    folder = checkout / "config" / "robots" / "my_arm"
    (folder / missing).unlink()
    with pytest.raises(Exception, match=r"robot: got .*my_arm; expected .*a folder with node.yaml"):
        robot_policy(robot=str(folder))
