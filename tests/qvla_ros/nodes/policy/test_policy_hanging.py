"""A policy node whose inference hangs reports a fault, and drops the late chunk.

The engine is not closed while it is in use.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from qvla.msg import PolicyStatus
from rclpy.lifecycle import TransitionCallbackReturn

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.policy.main import main
from qvla_ros.nodes.policy.node import PolicyNode
from qvla_ros.nodes.process import Interrupted
from qvla_ros.observation import Observation

LOOK = Observation({}, np.zeros(0), "pick up the milk", 0, {})

if TYPE_CHECKING:
    from conftest import Robot


@pytest.fixture
def policy_in_this_process(robot: Robot, bundle_dir: Path) -> Iterator[PolicyNode]:
    """An active node in /x whose engine the test may replace.

    It is for what cannot be arranged from outside.
    """
    values = {"bundle": str(bundle_dir), "backend": "zero", "inference_timeout_s": 0.2}
    arguments = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    node = PolicyNode(cli_args=["--ros-args", *arguments, "-r", "__ns:=/x"])
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    yield node
    node.release()
    node.destroy_node()


def test_an_inference_that_takes_too_long_is_a_fault_and_its_late_chunk_is_dropped(
    policy_in_this_process: PolicyNode, robot: Robot
) -> None:
    node = policy_in_this_process
    released = threading.Event()
    run = node._configured.policy.engine.run

    def slow(inputs: dict) -> dict:
        assert released.wait(60)
        return run(inputs)

    node._configured.policy.engine.run = slow
    robot.add(node)
    robot.wait_until_active()
    robot.tell("pick up the milk")

    def faulty() -> list[PolicyStatus]:
        robot.publish()
        return [status for status in robot.statuses if status.state == PolicyStatus.FAULT]

    status = robot.wait(faulty, "FAULT")[0]
    assert "more than inference_timeout_s = 0.2 s" in status.reason
    released.set()
    assert node._active.inference.stop(60)
    for _ in range(10):
        robot.spin()
    assert robot.chunks == []


def let_inference_hang(
    node: PolicyNode, released: threading.Event, closed: list[PolicyNode]
) -> None:
    """Return once `node` is in an inference that ends when `released` is set.

    Closing its engine is put on record.
    """
    started = threading.Event()

    def infer(observation: object) -> None:
        started.set()
        assert released.wait(60)

    node._configured.policy.infer = infer
    node._configured.policy.engine.close = lambda: closed.append(node)
    node._active.inference._worker.submit((LOOK, 0))
    assert started.wait(60)


def test_ctrl_c_in_a_hanging_inference_ends_with_0_and_leaves_the_engine_open(
    ros_environment: dict,
    bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    released = threading.Event()
    nodes = []
    closed = []

    def hang_until_interrupted(node: PolicyNode, executor: object, is_over: object) -> None:
        nodes.append(node)
        let_inference_hang(node, released, closed)
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("qvla_ros.nodes.policy.main.spin", hang_until_interrupted)
    values = {"bundle": str(bundle_dir), "backend": "zero", "inference_timeout_s": 0.1}
    arguments = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    try:
        assert main(["--ros-args", *arguments]) == 0
        assert nodes[0]._leaving._worker.alive
        assert closed == []
    finally:
        released.set()
    written = capfd.readouterr().err
    assert "SIGINT: stopping" in written
    assert "inference: got still running" in written
    assert nodes[0]._leaving.stop(60)


def test_an_engine_is_closed_once_its_inference_has_ended(
    policy_in_this_process: PolicyNode,
) -> None:
    node = policy_in_this_process
    released = threading.Event()
    closed = []
    let_inference_hang(node, released, closed)
    # the second time is rclpy's own: a transition that failed is followed by on_error
    for _ in range(2):
        with pytest.raises(QvlaError, match="still running"):
            node.release()
    assert closed == []
    released.set()
    assert node._leaving.stop(60)
    node.release()
    assert closed == [node]


def test_an_inference_that_took_too_long_is_a_fault_though_nobody_looked_while_it_ran(
    policy_in_this_process: PolicyNode,
) -> None:
    node = policy_in_this_process  # which is not spun: no timer looks at anything
    infer = node._configured.policy.infer

    def slow(observation: Observation) -> object:
        time.sleep(0.3)
        return infer(observation)

    images = {
        camera.name: np.zeros((camera.height, camera.width, 3), np.uint8)
        for camera in node._configured.policy.bundle.cameras
    }
    node._configured.policy.infer = slow
    node._active.inference.submit(Observation(images, np.zeros(8), "pick up the milk", 0, {}))
    end_s = time.monotonic() + 60
    while not node._active.fault and time.monotonic() < end_s:
        time.sleep(0.01)
    assert "more than inference_timeout_s = 0.2 s" in node._active.fault


def test_a_node_that_is_deactivated_in_a_hanging_inference_ends_with_3(
    start: Callable, robot: Robot, bundle_dir: Path, tmp_path: Path
) -> None:
    fault_file = tmp_path / "fault"
    parameters = {
        "bundle": str(bundle_dir),
        "backend": "zero",
        "inference_timeout_s": 0.2,
        "engine_options.fault_file": str(fault_file),
    }
    process = start("policy", parameters, "x")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    robot.ask()
    fault_file.write_text("600")
    robot.wait(lambda: not fault_file.exists(), "the inference to hang", lambda: robot.publish())
    assert not robot.change_state(Transition.TRANSITION_DEACTIVATE)
    assert process.wait() == 3
    assert "the inference does not end, so the process does" in process.stderr
    assert "Fix: restart the node" in process.stderr
