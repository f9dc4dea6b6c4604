"""The policy node's inputs and a robot beside them, in one process and over DDS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.messages.robot_state import Measured
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.inputs.observation_inputs import ObservationInputs
from qvla_ros.nodes.process import destroy, make_executor
from qvla_ros.observation import Observation
from qvla_ros.parameters.policy import EXECUTORS, InputParameters
from qvla_ros.simulation.specification import FINGER_NAMES, POSE_FRAME

PATIENCE_S = 30.0
RESEND_S = 1.0
SIZE = 32
SETTINGS = InputParameters(max_stamp_spread_s=0.05, max_image_age_s=1.0)


class Bench:
    """A node with inputs, a robot that publishes to it, and the observations that came of it."""

    def __init__(
        self,
        bundle: Bundle,
        settings: InputParameters,
        measured: Measured | None,
        parameters: list[Parameter],
        executor: str,
    ) -> None:
        self.bundle = bundle
        self.node = rclpy.create_node("policy", namespace="/x", parameter_overrides=parameters)
        self.robot = rclpy.create_node("robot")
        self.observations: list[Observation] = []
        self.threads: set[str] = set()
        self._executor = make_executor(executor)
        for node in (self.node, self.robot):
            self._executor.add_node(node)
        self.inputs = ObservationInputs(self.node, bundle, settings, self._keep, measured=measured)
        self.stamp_ns = time.time_ns()
        self._publishers: dict[str, Any] = {}

    def _keep(self, observation: Observation) -> None:
        self.observations.append(observation)
        self.threads.add(threading.current_thread().name)

    def publish(self, kind: Any, topic: str, message: Any, profile: Any = qos.SENSOR) -> None:
        if topic not in self._publishers:
            self._publishers[topic] = self.robot.create_publisher(kind, topic, profile)
            self.wait(lambda: self._publishers[topic].get_subscription_count() > 0, topic)
        self._publishers[topic].publish(message)

    def spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.01)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited for {what}; {self.inputs.poll()}"
            self.spin()
        return result

    def close(self) -> None:
        self.inputs.destroy()
        destroy(self.node, self._executor)
        self.robot.destroy_node()

    def tell(self) -> None:
        self.publish(String, "/x/instruction", String(data="pick up the milk"), qos.LATCHED)

    def stamped(self, message: Any, offset_ns: int = 0) -> Any:
        message.header.stamp = Time(nanoseconds=self.stamp_ns + offset_ns).to_msg()
        return message

    def send_state(
        self, joints: dict[str, float], frame: str = POSE_FRAME, x: float = 0.1, w: float = 1.0
    ) -> None:
        self.publish_joints(joints)
        pose = PoseStamped()
        pose.header.frame_id = frame
        pose.pose.position.x = x
        pose.pose.orientation.w = w
        self.publish(PoseStamped, "/x/ee_pose", self.stamped(pose))

    def publish_joints(self, joints: dict[str, float]) -> None:
        state = JointState(name=list(joints), position=list(joints.values()))
        self.publish(JointState, "/x/joint_states", self.stamped(state))

    @staticmethod
    def fingers(value: float = 0.02) -> dict[str, float]:
        """Positions of both fingers, by name."""
        return {FINGER_NAMES[0]: value, FINGER_NAMES[1]: -value}

    def send_images(self, bundle: Bundle) -> None:
        for camera in bundle.cameras:
            image = Image(
                height=SIZE, width=SIZE, encoding="rgb8", step=3 * SIZE, data=bytes(3 * SIZE * SIZE)
            )
            self.publish(Image, f"/x/camera/{camera.name}/image_raw", self.stamped(image))

    def observe(self, *send: Callable[[], None]) -> Observation:
        """Send everything under one stamp until an observation comes of it.

        Sent again, under a new stamp, only after a while: topics are best effort and one message
        deep, so that of two sets in a row the first may lose some and the second give the rest.
        """
        self.tell()
        count = len(self.observations)
        sent_s = -np.inf

        def answered() -> Observation | None:
            nonlocal sent_s
            if time.monotonic() - sent_s > RESEND_S:
                self.stamp_ns = time.time_ns()
                sent_s = time.monotonic()
                for each in send:
                    each()
            self.spin()
            return self.observations[-1] if len(self.observations) > count else None

        return self.wait(answered, "an observation")


@pytest.fixture
def bundle(bundle_dir: Any) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture
def bench(ros_environment: dict[str, str], bundle: Bundle) -> Iterator[Callable[..., Bench]]:
    """bench(parameters=[...], of=bundle, executor="events", max_image_age_s=2.0) in a ROS graph of
    its own.
    """
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    benches: list[Bench] = []

    def make(
        parameters: list[Parameter] | None = None,
        of: Any = None,
        executor: str = EXECUTORS[0],
        measured: Measured | None = None,
        **changes: Any,
    ) -> Bench:
        settings = replace(SETTINGS, **changes)
        benches.append(Bench(of or bundle, settings, measured, parameters or [], executor))
        return benches[-1]

    yield make
    for each in benches:
        each.close()
    rclpy.try_shutdown()
