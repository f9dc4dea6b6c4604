"""docs/how_to/add_output.md, followed to the letter with its own example."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.export.bundle import export_bundle
from qvla_ros.bundle import load_bundle
from qvla_ros.control.outputs import OUTPUTS, Output, output_names, register_output
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.processes import private_ros_environment
from qvla_ros.nodes.policy.node import PolicyNode
from qvla_ros.nodes.process import destroy
from qvla_ros.testing.fake_robot import FakeRobot
from qvla_ros.testing.fault_drill import NAMESPACE, PARAMETERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_to" / "add_output.md").read_text(encoding="utf-8")
PATIENCE_S = 60.0


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    """The example of the page, as a file and one registration."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    [entry] = re.findall(r"```\n( +Output\(.*?\)),\n```", PAGE, re.DOTALL)
    file = tmp_path / "added" / "transform.py"
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(file.parent)
    # The page's file is in the package; this one is beside it, so its module has another name.
    made = eval(entry.strip().replace('f"{_NODE}.transform"', '"transform"'), {"Output": Output})
    register_output(made)
    yield made
    OUTPUTS.pop(made.name)
    sys.modules.pop("transform", None)


@pytest.fixture
def ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with private_ros_environment(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        rclpy.init(domain_id=int(environment["ROS_DOMAIN_ID"]))
        yield
        rclpy.try_shutdown()


def test_the_added_output_is_what_the_node_publishes(
    output: Output, ros: None, tmp_path: Path
) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint")
    bundle_dir = export_bundle(checkpoint, None, tmp_path / "bundle")
    given: dict[str, Any] = {
        **PARAMETERS,
        "bundle": str(bundle_dir),
        "output": output.name,
        "output_topic": "~/transform",
        # All commands are counted here.
        f"qos_overrides./{NAMESPACE}/policy/transform.publisher.depth": 1000,
    }
    words = [f"{name}:={json.dumps(value)}" for name, value in given.items()]
    arguments = [part for word in words for part in ("-p", word)]
    node = PolicyNode(["--ros-args", "-r", f"__ns:=/{NAMESPACE}", *arguments])
    # It obeys poses on another topic, so it stays where it is.
    robot = FakeRobot(rclpy.get_default_context(), load_bundle(bundle_dir), NAMESPACE, "pose", 40.0)
    heard: list[TransformStamped] = []
    robot.node.create_subscription(TransformStamped, "policy/transform", heard.append, 1000)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def wait_for(condition: Any) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, node.snapshot().reason
            executor.spin_once(timeout_sec=0.02)

    def armed() -> bool:
        try:
            node.arm()
        except QvlaError:  # its inputs have not come yet
            return False
        return True

    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        wait_for(armed)
        wait_for(lambda: len(heard) > 5)
        assert {message.child_frame_id for message in heard} == {"commanded"}
        node.disarm(StopReason.cancelled)
        wait_for(lambda: node.snapshot().stop_reason == "cancelled" and not node.is_stopping())
        count = node.snapshot().commands_sent
        wait_for(lambda: len(heard) == count)
        assert heard[-1].transform == heard[-2].transform  # a position is held
    finally:
        node.say_goodbye()
        robot.close()
        destroy(node, executor)


def test_an_added_output_is_a_choice_and_its_name_is_taken(output: Output) -> None:
    assert output_names()[-1] == output.name
    with pytest.raises(QvlaError, match=r"'transform'; expected none of .*, which are taken"):
        register_output(output)


def test_the_page_names_the_files_to_touch() -> None:
    named = re.findall(r"^\d\. `([\w/.]+)`", PAGE, re.MULTILINE)
    assert named == ["qvla_ros/nodes/policy/outputs/NAME.py", "qvla_ros/control/outputs.py"]
    assert all((ROOT / path).parent.is_dir() for path in named)
    assert (ROOT / named[1]).is_file()
