"""Over real DDS: a policy node and its robot are recorded.

On the bag the policy gives the same, to the last bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState

from qvla_ros.cli.main import main
from qvla_ros.nodes.chunk_message import stamp_message
from qvla_ros.recording.bag import open_bag
from qvla_ros.recording.replay import read_chunks
from qvla_ros.simulation.specification import FINGER_NAMES, POSE_FRAME

if TYPE_CHECKING:
    from conftest import Robot

CHUNK_TOPIC = "/x/policy/action_chunk"
STATUS_TOPIC = "/x/policy/status"
OBSERVATIONS = 20


@pytest.fixture
def recorder(ros_environment: dict[str, str], tmp_path: Path):
    arguments = [
        sys.executable,
        "-m",
        "qvla_ros.cli.main",
        "record",
        "--out",
        str(tmp_path / "bag"),
    ]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True
    )
    yield process
    process.kill()
    process.wait()


def publish_observation(robot: Robot, number: int) -> None:
    """Images of one stamp; poses and joints that move on faster and lie around it."""
    now_ns = robot.node.get_clock().now().nanoseconds
    for offset_ms in (-10, -3, 4):
        stamp = stamp_message(now_ns + 1_000_000 * offset_ms)
        pose = PoseStamped()
        pose.header.stamp = stamp
        pose.header.frame_id = POSE_FRAME
        pose.pose.position.x = 0.01 * number + 0.001 * offset_ms
        pose.pose.orientation.w = 1.0
        joints = JointState(name=list(FINGER_NAMES), position=[0.5 + 0.001 * offset_ms, -0.5])
        joints.header.stamp = stamp
        robot.pose.publish(pose)
        robot.joints.publish(joints)
        robot.spin(0.002)
    image = Image(height=32, width=32, encoding="rgb8", step=96, data=bytes([number]) * 3072)
    image.header.stamp = stamp_message(now_ns)
    for publisher in robot.images.values():
        publisher.publish(image)


def test_a_recorded_policy_gives_the_same_on_its_bag_and_another_does_not(
    start: Callable,
    robot: Robot,
    recorder: subprocess.Popen,
    bundle_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    start("policy", {"bundle": str(bundle_dir), "engine_options.threads": 1}, "x")
    robot.tell("pick up the milk")
    heard_by = [*robot.images.values(), robot.joints, robot.pose]
    robot.wait(
        lambda: all(publisher.get_subscription_count() == 2 for publisher in heard_by),
        "policy and recorder",
    )
    numbers = iter(range(10_000))
    while len(robot.chunks) < OBSERVATIONS:
        publish_observation(robot, next(numbers))
        robot.spin(0.05)
    time.sleep(1.0)  # the recorder, a process of its own, may hear later than this one
    assert (tmp_path / "bag.unfinished").is_dir()
    assert not (tmp_path / "bag").exists()
    recorder.send_signal(signal.SIGINT)
    printed, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert f"{tmp_path / 'bag'}: " in printed
    assert not (tmp_path / "bag.unfinished").exists()

    with open_bag(tmp_path / "bag") as bag:
        assert {CHUNK_TOPIC, STATUS_TOPIC, "/x/instruction", "/x/joint_states", "/x/ee_pose"} < set(
            bag.types
        )
        chunks = read_chunks(bag, CHUNK_TOPIC)
    # the arm moved: a wrong sample would show
    assert len({chunk.actions[0, 0] for chunk in chunks}) > OBSERVATIONS / 2

    replay = ["replay", str(tmp_path / "bag"), "--bundle", str(bundle_dir), "--json"]
    assert main([*replay, "--tolerance", "0"]) == 0
    same = json.loads(capsys.readouterr().out)
    assert same["matched"] + len(same["unmatched"]) == len(chunks)
    assert same["matched"] >= OBSERVATIONS - 2
    assert {column["max"] for column in same["difference"].values()} == {0.0}
    assert main([*replay, "--backend", "zero"]) == 1
    other = json.loads(capsys.readouterr().out)
    assert max(column["max"] for column in other["difference"].values()) > 0.01
    assert "actions differ by up to" in other["failure"]
