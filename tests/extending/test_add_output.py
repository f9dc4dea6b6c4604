"""docs/how_to/add_output.md, followed to the letter with its own example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from geometry_msgs.msg import TransformStamped

from qvla_ros.control.outputs import OUTPUTS, register_output
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.specification import POSE_FRAME
from tests.extending.page import enter, read_page
from tests.support.commanding import commanding

if TYPE_CHECKING:
    from tests.qvla_ros.nodes.conftest import Robot

PAGE = read_page("add_output")
PARAMETERS = commanding(output="transform") | {
    "qos_overrides./x/policy/command.publisher.depth": 1000,  # the test looks at every command
}


def test_the_page_needs_one_file_and_one_registration() -> None:
    assert (len(PAGE.sources), len(PAGE.registrations)) == (1, 1)


def test_an_output_added_from_the_page_passes_its_tests_and_is_listed(checkout: Path) -> None:
    PAGE.follow(checkout)
    assert "`transform`" in (checkout / "docs" / "parameters.md").read_text()


def test_a_policy_node_sends_the_message_of_an_output_added_from_the_page(
    checkout: Path,
    start: Callable,
    robot: Robot,
    bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PAGE.apply(checkout)
    enter(checkout, monkeypatch)
    heard: list[TransformStamped] = []
    robot.node.create_subscription(TransformStamped, "/x/policy/command", heard.append, 100)
    process = start("policy", {**PARAMETERS, "bundle": str(bundle_dir)}, "x")

    def stream() -> None:
        assert process.popen.poll() is None, process.stderr
        robot.publish()
        robot.spin()

    robot.wait(lambda: robot.instruction.get_subscription_count(), "the node", stream)
    robot.tell("pick up the milk")

    def armed() -> bool:
        stream()
        return robot.arm(True).success

    robot.wait(armed, "arming", stream)
    robot.wait(lambda: len(heard) >= 5, "commands", stream)
    assert heard[-1].header.frame_id == POSE_FRAME
    assert heard[-1].child_frame_id == "commanded_end_effector"
    assert heard[-1].transform.translation != heard[0].transform.translation
    assert robot.arm(False).success
    robot.wait(lambda: robot.statuses[-1].stop_reason == "disarmed", "the stop", stream)
    robot.wait(lambda: heard[-1].transform == heard[-2].transform, "the position to be held")


def test_the_name_of_an_output_is_taken_once() -> None:
    with pytest.raises(QvlaError, match=r"'pose'; expected none of .*, which are taken"):
        register_output(OUTPUTS["pose"])
