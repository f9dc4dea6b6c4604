"""`python -m qvla_ros.nodes.tools`: the listing of a graph, and the choice of a tool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qvla_ros.nodes.tools.main import graph_lines
from qvla_ros.ros_graph import Endpoint, Topic

CAMERA = Endpoint("/camera", "sensor_msgs/msg/Image", reliable=False, transient_local=False)
POLICY = Endpoint("/arm/policy", "sensor_msgs/msg/Image", reliable=False, transient_local=False)
VIEWER = Endpoint("/viewer", "sensor_msgs/msg/Image", reliable=True, transient_local=False)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qvla_ros.nodes.tools", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_listing_shows_who_hears_whom_and_why_not() -> None:
    topics = {
        "/image": Topic((CAMERA,), (POLICY, VIEWER)),
        "/unheard": Topic((CAMERA,), ()),
        "/awaited": Topic((), (POLICY,)),
    }
    assert list(graph_lines(topics)) == [
        "/awaited [sensor_msgs/msg/Image]",
        "  nobody -> /arm/policy",
        "/image [sensor_msgs/msg/Image]",
        "  /camera -> /arm/policy",
        "  /camera -> /viewer: not heard, the publisher is best effort, the subscription wants "
        "reliable",
        "/unheard [sensor_msgs/msg/Image]",
        "  /camera -> nobody",
    ]


def test_the_graph_of_a_running_node_is_listed(robot) -> None:
    listed = run("graph")
    assert listed.returncode == 0, listed.stderr
    assert "/x/policy/status [qvla/msg/PolicyStatus]\n  nobody -> /robot" in listed.stdout
    assert "qvla_doctor" not in listed.stdout


def test_a_recording_without_messages_exits_2_with_the_reason(
    ros_environment: dict[str, str], tmp_path: Path
) -> None:
    ended = run("record", "--out", str(tmp_path / "bag"), "--duration_s", "0.5")
    assert ended.returncode == 2
    assert "recording: got no message" in ended.stderr
