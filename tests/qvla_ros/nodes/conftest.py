"""Real processes over real DDS: each test has a ROS domain of its own on this machine only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from qvla.msg import ActionChunk, PolicyStatus
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from qvla_ros.evaluation.processes import private_ros_environment
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth
from qvla_ros.nodes.policy.snapshot import LoopHealth, Snapshot
from qvla_ros.nodes.process import destroy
from qvla_ros.simulation.specification import CAMERA_NAMES, FINGER_NAMES, POSE_FRAME

PATIENCE_S = 120.0  # for what takes a second or two on an idle machine
CAMERA_SIZE = 32
POSITION_M = (0.1, -0.2, 0.3)
FINGERS_M = (0.75, -0.5)


@pytest.fixture
def ros_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment of a private ROS graph, for child processes and for this one."""
    with private_ros_environment(tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment


class Process:
    """A node in a process of its own; `stderr` and `lines` are what it has written so far."""

    def __init__(
        self, module: str, parameters: dict[str, Any], namespace: str, directory: Path
    ) -> None:
        arguments = [sys.executable, "-m", module, "--ros-args"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={json.dumps(value)}"]
        if namespace:
            arguments += ["-r", f"__ns:=/{namespace}"]
        stem = directory / f"{module.rsplit('.', 1)[-1]}_{namespace}_{time.monotonic_ns()}"
        self._out = stem.with_suffix(".out")
        self._err = stem.with_suffix(".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.popen = subprocess.Popen(
                arguments, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=os.environ
            )

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        # what follows the last newline is not whole yet
        lines = self._out.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def wait(self) -> int:
        return self.popen.wait(PATIENCE_S)

    def wait_for_event(self, event: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            assert self.popen.poll() is None, self.stderr
            return next((item for item in self.events if item["event"] == event), None)

        return wait_for(found, lambda: f"event {event}; {self.stderr}")


def wait_for(
    condition: Callable[[], Any], what: Callable[[], str], step: Callable[[], None] | None = None
) -> Any:
    """What `condition` gives once it is true; fails after PATIENCE_S, naming `what`."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what()}"
        step() if step is not None else time.sleep(0.02)
    return result


@pytest.fixture
def start(ros_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """start(module, parameters, namespace="x") -> Process in the test graph, killed at its end."""
    processes: list[Process] = []

    def run(module: str, parameters: dict[str, Any], namespace: str = "") -> Process:
        processes.append(Process(f"qvla_ros.nodes.{module}", parameters, namespace, tmp_path))
        return processes[-1]

    yield run
    for process in processes:
        process.popen.kill()
        process.popen.wait()


class Robot:
    """Publishes observations to the policy node in namespace /x and keeps what comes back."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        publisher = self.node.create_publisher
        self.images = {
            name: publisher(Image, f"/x/camera/{name}/image_raw", qos.SENSOR)
            for name in CAMERA_NAMES
        }
        self.joints = publisher(JointState, "/x/joint_states", qos.SENSOR)
        self.pose = publisher(PoseStamped, "/x/ee_pose", qos.SENSOR)
        self.instruction = publisher(String, "/x/instruction", qos.LATCHED)
        # Before the subscriptions: endpoints are discovered in order, so that whoever sends a
        # status hears a call.
        self._arm = self.node.create_client(SetBool, "/x/policy/arm")
        self._change_state = self.node.create_client(ChangeState, "/x/policy/change_state")
        self.chunks: list[ActionChunk] = []
        self.statuses: list[PolicyStatus] = []
        self.node.create_subscription(
            ActionChunk, "/x/policy/action_chunk", self.chunks.append, qos.COMMAND
        )
        self.node.create_subscription(
            PolicyStatus, "/x/policy/status", self.statuses.append, qos.LATCHED
        )

    def close(self) -> None:
        """Leave the graph."""
        destroy(self.node, self._executor)

    def spin(self, seconds: float = 0.02) -> None:
        self._executor.spin_once(timeout_sec=seconds)

    def wait(
        self, condition: Callable[[], Any], what: str, step: Callable[[], None] | None = None
    ) -> Any:
        def description() -> str:
            return f"{what}; statuses {[status.reason for status in self.statuses]}"

        return wait_for(condition, description, step or self.spin)

    def wait_until_active(self) -> None:
        publishers = (*self.images.values(), self.joints, self.pose, self.instruction)
        self.wait(lambda: all(p.get_subscription_count() > 0 for p in publishers), "subscriptions")

    def wait_for_reason(self, *words: str, step: Callable[[], None] | None = None) -> PolicyStatus:
        def found() -> PolicyStatus | None:
            return next((s for s in self.statuses if all(word in s.reason for word in words)), None)

        return self.wait(found, f"a status with {words}", step)

    def publish_until_reason(self, *words: str, **options: Any) -> PolicyStatus:
        """Publish such observations until a status says all `words`, and ten more; that status.

        However many it takes: that the node's subscriptions are known here does not mean that it
        knows the publishers.
        """

        def publish_again() -> None:
            self.publish(**options)
            self.spin()

        status = self.wait_for_reason(*words, step=publish_again)
        for _ in range(10):
            publish_again()
        return status

    def tell(self, instruction: str) -> None:
        self.instruction.publish(String(data=instruction))

    def add(self, node: Any) -> None:
        """Serve another node of this process too."""
        self._executor.add_node(node)

    def publish(
        self,
        encoding: str = "rgb8",
        joints: tuple[str, ...] = FINGER_NAMES,
        cameras: int = 2,
        size: tuple[int, int] = (CAMERA_SIZE, CAMERA_SIZE),
        frame: str = POSE_FRAME,
    ) -> Any:
        """One observation under one stamp, which is returned."""
        stamp = self.node.get_clock().now().to_msg()
        state = JointState(name=list(joints), position=list(FINGERS_M[: len(joints)]))
        pose = PoseStamped()
        pose.header.frame_id = frame
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = POSITION_M
        height, width = size
        image = Image(height=height, width=width, encoding=encoding, step=3 * width)
        image.data = bytes(3 * height * width)
        for message in (state, pose, image):
            message.header.stamp = stamp
        self.joints.publish(state)
        self.pose.publish(pose)
        for publisher in list(self.images.values())[:cameras]:
            publisher.publish(image)
        return stamp

    def ask(self, **options: Any) -> ActionChunk:
        """Publish observations until a chunk answers one of them; that chunk."""
        stamps: list[Any] = []
        self.chunks.clear()

        def answered() -> ActionChunk | None:
            return next((chunk for chunk in self.chunks if chunk.header.stamp in stamps), None)

        def publish_again() -> None:
            stamps.append(self.publish(**options))
            end = time.monotonic() + 0.5  # best effort: an image may get lost
            while not answered() and time.monotonic() < end:
                self.spin()

        return wait_for(
            answered, lambda: f"a chunk; {[s.reason for s in self.statuses]}", publish_again
        )

    def call(self, client: Any, request: Any) -> Any:
        self.wait(client.service_is_ready, client.srv_name)
        future = client.call_async(request)
        self.wait(future.done, client.srv_name)
        return future.result()

    def configure_in_vain(self) -> None:
        """Ask for a configure that must fail until an answer comes.

        The first can get lost while DDS connects.
        """
        request = ChangeState.Request()
        request.transition.id = Transition.TRANSITION_CONFIGURE
        self.wait(self._change_state.service_is_ready, "change_state")
        futures: list[Any] = []

        def ask_again() -> None:
            futures.append(self._change_state.call_async(request))
            end = time.monotonic() + 2.0
            while not futures[-1].done() and time.monotonic() < end:
                self.spin()

        wait_for(
            lambda: futures and futures[-1].done(), lambda: "an answer of change_state", ask_again
        )
        assert not futures[-1].result().success

    def arm(self, armed: bool) -> Any:
        return self.call(self._arm, SetBool.Request(data=armed))

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(self._change_state, request).success


@pytest.fixture
def robot(ros_environment: dict[str, str]) -> Iterator[Robot]:
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    robot = Robot()
    yield robot
    robot.close()
    rclpy.try_shutdown()


@pytest.fixture(scope="session")
def well() -> Snapshot:
    """What a policy node that commands an arm and lacks nothing knows of itself."""
    return Snapshot(
        state=PolicyStatus.RUNNING,
        reason="",
        armed=True,
        stop_reason="",
        stop_stamp_ns=0,
        stop_delay_s=0.0,
        stop_delay_ticks=0,
        bundle_id="0123456789abcdef",
        engine="onnxruntime 1.32",
        backend="onnxruntime",
        streams=(StreamHealth("/x/joint_states", 100.0, 0.01),),
        inference_ms=(10.0, 20.0, 30.0),
        stage_ms={"wait": 1.0},
        deadline_misses=0,
        consecutive_deadline_misses=0,
        chunks_published=7,
        observations_dropped=0,
        commands_sent=50,
        interventions={"finite": 0, "workspace": 0},
        loop=LoopHealth(
            ticks=100, overruns=0, asked_ms=10.0, p50_ms=10.0, p99_ms=11.0, max_ms=12.0
        ),
        remaining_s=0.2,
        step_dt_s=0.05,
        upcoming=np.zeros((4, 7)),
    )
