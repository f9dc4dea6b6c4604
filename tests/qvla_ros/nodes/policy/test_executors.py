"""The executor `events` runs a node as the usual one does in all other tests.

Tested too is how both end.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.process import destroy, make_executor
from qvla_ros.parameters.policy import EXECUTORS

if TYPE_CHECKING:
    from conftest import Robot


def test_with_the_events_executor_chunks_services_and_a_signal_do_what_they_do_with_the_usual_one(
    start: Callable, robot: Robot, bundle_dir: Path
) -> None:
    parameters = {"bundle": str(bundle_dir), "backend": "zero", "executor": "events"}
    process = start("policy", parameters, "x")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    assert not robot.ask().armed
    assert robot.arm(True).success
    assert robot.ask().armed
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.stderr
    robot.wait_for_reason("not active")


def test_with_the_events_executor_transitions_survive_endpoints_that_do_not_fit_coming_and_going(
    start: Callable, robot: Robot, bundle_dir: Path
) -> None:
    parameters = {
        "bundle": str(bundle_dir),
        "backend": "zero",
        "executor": "events",
        "deadman": True,
    }
    limits = {
        "output": "pose",
        "linear_low": [-1.0],
        "linear_high": [1.0],
        "linear_scale": 0.1,
        "angular_scale": 0.1,
    }
    process = start("policy", {**parameters, **limits}, "x")
    robot.wait_until_active()
    # asks for more than commands offer
    misfit = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    stop = threading.Event()

    def come_and_go() -> None:
        node = rclpy.create_node("misfits")
        while not stop.is_set():
            heard = [
                node.create_subscription(PoseStamped, "/x/policy/command", print, misfit)
                for _ in range(5)
            ]
            publishers = [node.create_publisher(String, "/x/instruction", 1) for _ in range(5)]
            time.sleep(0.01)
            for subscription, publisher in zip(heard, publishers, strict=True):
                node.destroy_subscription(subscription)
                node.destroy_publisher(publisher)
        node.destroy_node()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(8):
            for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
                assert robot.change_state(transition)
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                assert robot.change_state(transition)
    finally:
        stop.set()
        thread.join()
    assert process.popen.poll() is None, process.stderr


def test_a_ros_without_the_events_executor_is_told_to_take_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rclpy.experimental", None)
    with pytest.raises(QvlaError, match=r"parameter executor: got events.*single_threaded"):
        make_executor("events")


@pytest.mark.parametrize("kind", EXECUTORS)
def test_a_node_that_was_destroyed_has_left_the_graph_though_its_executor_lives_on(
    robot: Robot, kind: str
) -> None:
    node = rclpy.create_node("other")
    executor = make_executor(kind)
    heard = []
    node.create_publisher(String, "/x/latched", qos.LATCHED).publish(String(data="to late comers"))
    node.create_subscription(String, "/x/instruction", heard.append, qos.LATCHED)
    executor.add_node(node)
    robot.tell("pick up the milk")
    while not heard:
        executor.spin_once(timeout_sec=0.1)
    destroy(node, executor)
    robot.wait(lambda: robot.instruction.get_subscription_count() == 0, "the subscription to go")
    robot.wait(lambda: robot.node.count_publishers("/x/latched") == 0, "the publisher to go")
    assert executor.get_nodes() is not None
