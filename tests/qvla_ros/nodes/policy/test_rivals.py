"""Two publishers of a camera, or two commanders of an arm, are refused and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image

from qvla_ros.nodes import qos
from tests.support.commanding import commanding

if TYPE_CHECKING:
    from tests.qvla_ros.nodes.conftest import Robot

COMMANDING = commanding()


def test_a_second_publisher_keeps_the_arm_from_being_armed_and_stops_it(
    start: Callable, robot: Robot, bundle_dir: Path
) -> None:
    start("policy", {"bundle": str(bundle_dir), **COMMANDING}, "x")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.ask()
    camera = "/x/camera/wrist/image_raw"
    second = robot.node.create_publisher(Image, camera, qos.SENSOR)
    refused: list[str] = []

    def refuses() -> bool:
        robot.publish()
        answer = robot.arm(True)
        if answer.success:
            robot.arm(False)
        refused.append(answer.message)
        return f"2 publishers on {camera}" in answer.message

    robot.wait(refuses, "a refusal")
    assert "ros2 topic info --verbose" in refused[-1]
    robot.node.destroy_publisher(second)

    def armed() -> bool:
        robot.publish()
        return robot.arm(True).success

    robot.wait(armed, "armed")
    rival = robot.node.create_publisher(PoseStamped, "/x/policy/command", 1)

    def stopped() -> bool:
        robot.publish()
        robot.spin()
        return robot.statuses[-1].stop_reason == "crowded"

    robot.wait(stopped, "a stop")
    assert not robot.statuses[-1].armed
    assert "2 publishers on /x/policy/command" in robot.statuses[-1].reason
    robot.node.destroy_publisher(rival)
