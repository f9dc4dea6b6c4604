"""A robot's line to one policy node: what it senses goes out, and one chunk per observation comes back, or a reason."""

from __future__ import annotations

import array
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from qvla.msg import ActionChunk, PolicyStatus
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import chunk_actions, stamp_message, stamp_ns
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.specification import (
    ACTION_KIND,
    ACTION_NAMES,
    ACTION_UNITS,
    CAMERA_NAMES,
    CONTROL_PERIOD_S,
    FINGER_NAMES,
    JOINT_NAMES,
    POSE_FRAME,
)

WAIT_S = 0.02  # at most this long between two looks at clocks and the graph
# Best-effort images can get lost: the observation is then published again, with a new stamp.
RESEND_PERIOD_S = 2.0
# An answer is dropped when the server has not matched the client's reader yet, so a service is asked again.
ARM_TIMEOUT_S, ARM_RETRY_S = 10.0, 2.0
LAST_DISARM_S = 1.0
_STATE_NAMES = {0: "WAITING", 1: "RUNNING", 2: "FAULT", 3: "INACTIVE"}


class PolicyLost(Exception):
    """No usable chunk: the policy is absent, gone, late, faulty or speaks for another robot. The text is the reason."""


@dataclass(frozen=True)
class Answer:
    """A chunk that may be executed. actions: float64 [K, 7]; published_ns: the first stamp of its observation."""

    actions: NDArray[np.float64]
    published_ns: int
    inference_ms: float


class PolicyLink:
    """Topics of the policy node `/<namespace>/policy`. `wait(seconds)` serves callbacks of the node for that long."""

    def __init__(self, node: Node, namespace: str, wait: Callable[[float], None]) -> None:
        self.namespace = namespace
        self._node, self._wait = node, wait
        root = f"/{namespace.strip('/')}"
        self._images = {
            name: node.create_publisher(Image, f"{root}/camera/{name}/image_raw", qos.SENSOR) for name in CAMERA_NAMES
        }
        self._joints = node.create_publisher(JointState, f"{root}/joint_states", qos.SENSOR)
        self._pose = node.create_publisher(PoseStamped, f"{root}/ee_pose", qos.SENSOR)
        self._instruction = node.create_publisher(String, f"{root}/instruction", qos.LATCHED)
        # Before the subscriptions: endpoints are discovered in order, so that whoever sends a status hears a call.
        self._arm: Any = node.create_client(SetBool, f"{root}/policy/arm")
        chunks = node.create_subscription(ActionChunk, f"{root}/policy/action_chunk", self._on_chunk, qos.COMMAND)
        node.create_subscription(PolicyStatus, f"{root}/policy/status", self._on_status, qos.LATCHED)
        self.topic = chunks.topic_name
        self.status: PolicyStatus | None = None
        self._chunk: ActionChunk | None = None
        self._seen, self._status_s = False, 0.0
        self._maybe_armed = False
        self._fix = f"start it with: python -m qvla_ros.nodes.policy --ros-args -p bundle:=DIR -r __ns:={root}"

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return once the policy is active and hears every stream that it needs; else PolicyLost."""
        self._until(self._is_ready, timeout_s, "not ready")

    def tell(self, instruction: str) -> None:
        """Publish the instruction."""
        self._instruction.publish(String(data=instruction))

    def arm(self, armed: bool) -> None:
        """Arm or disarm; PolicyLost when the policy does not answer or refuses."""
        self._maybe_armed = True
        calls: list[Any] = []
        asked_s = float("-inf")

        def answered() -> bool:
            nonlocal asked_s
            if time.monotonic() - asked_s > ARM_RETRY_S:
                calls.append(self._arm.call_async(SetBool.Request(data=armed)))
                asked_s = time.monotonic()
            return calls[-1].done()

        self._until(answered, ARM_TIMEOUT_S, f"no answer from {self._arm.srv_name}")
        response = calls[-1].result()
        if response is None or not response.success:
            raise self._lost(f"{self._arm.srv_name} refused: {'' if response is None else response.message}")
        self._maybe_armed = armed

    def disarm_if_it_listens(self) -> None:
        """Unless it is disarmed already, ask once and wait LAST_DISARM_S at most: for when something has gone wrong."""
        if self._maybe_armed:
            call = self._arm.call_async(SetBool.Request(data=False))
            end_s = time.monotonic() + LAST_DISARM_S
            while not call.done() and time.monotonic() < end_s:
                self._wait(WAIT_S)

    def request(self, observation: LiberoObservation, instruction: str, timeout_s: float) -> Answer:
        """Publish the observation and wait for the armed chunk that answers it and follows the instruction.

        PolicyLost when none comes within `timeout_s`, when the policy vanishes or reports a fault, and when the chunk
        is not armed or not for this robot.
        """
        self._chunk = None
        sent_ns = [self._publish(observation)]
        last_sent_s = time.monotonic()

        def answered() -> bool:
            nonlocal last_sent_s
            chunk, self._chunk = self._chunk, None
            if chunk is not None and stamp_ns(chunk.header.stamp) in sent_ns:
                if chunk.instruction == instruction:
                    self._chunk = chunk
                    return True
                last_sent_s = float("-inf")  # computed before the instruction had arrived: ask again
            if time.monotonic() - last_sent_s > RESEND_PERIOD_S:
                sent_ns.append(self._publish(observation))
                last_sent_s = time.monotonic()
            return False

        self._until(answered, timeout_s, "no chunk for this observation")
        return self._checked(self._chunk, sent_ns[0])

    def _checked(self, chunk: Any, published_ns: int) -> Answer:
        try:
            actions = chunk_actions(
                chunk, self.topic, ACTION_KIND, ACTION_NAMES, ACTION_UNITS, POSE_FRAME, CONTROL_PERIOD_S
            )
        except QvlaError as error:
            raise PolicyLost(f"policy {self.namespace!r}: {error}") from None
        if not chunk.armed:
            raise self._lost("its chunk is marked disarmed; somebody called ~/arm with false, or it was restarted")
        latency_ms = dict(zip(chunk.latency_names, chunk.latency_ms, strict=False))
        return Answer(actions, published_ns, float(latency_ms.get("inference", float("nan"))))

    def _publish(self, observation: LiberoObservation) -> int:
        """Publish all streams under one stamp: now, on the node's clock. The arm stands still, so it is still true."""
        now_ns = self._node.get_clock().now().nanoseconds
        stamp = stamp_message(now_ns)
        joints = JointState(name=[*JOINT_NAMES, *FINGER_NAMES])
        joints.header.stamp = stamp
        joints.position = [*map(float, observation.joint_positions_rad), *map(float, observation.gripper_positions_m)]
        self._joints.publish(joints)
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = stamp, POSE_FRAME
        position, rotation = pose.pose.position, pose.pose.orientation
        position.x, position.y, position.z = map(float, observation.eef_position_m)
        rotation.x, rotation.y, rotation.z, rotation.w = map(float, observation.eef_quaternion_xyzw)
        self._pose.publish(pose)
        for name, pixels in observation.images.items():
            height, width, channels = pixels.shape
            image = Image(height=height, width=width, encoding="rgb8", step=width * channels)
            image.header.stamp, image.header.frame_id = stamp, name
            image.data = array.array("B", pixels.tobytes())
            self._images[name].publish(image)
        return now_ns

    def _is_ready(self) -> bool:
        active = self.status is not None and self.status.state in (PolicyStatus.WAITING, PolicyStatus.RUNNING)
        # A policy subscribes to the instruction last, and to those cameras and joints only that it needs.
        return active and self._arm.service_is_ready() and self._instruction.get_subscription_count() > 0

    def _until(self, done: Callable[[], bool], timeout_s: float, failure: str) -> None:
        started_s = time.monotonic()
        while not done():
            waited_s = time.monotonic() - started_s
            if self.status is not None and self.status.state == PolicyStatus.FAULT:
                raise self._lost(f"{failure} after {waited_s:.1f} s")
            present = self._node.count_publishers(self.topic) > 0
            if self._seen and not present:
                raise self._lost(f"its node is gone: nobody publishes on {self.topic} any more ({waited_s:.1f} s)")
            self._seen = self._seen or present
            if waited_s > timeout_s:
                raise self._lost(f"{failure} within {waited_s:.1f} s{'' if present else '; its node is not there'}")
            self._wait(WAIT_S)

    def _lost(self, what: str) -> PolicyLost:
        status = self.status
        said = "it never sent a status"
        if status is not None:
            ago_s = time.monotonic() - self._status_s
            state = f"{_STATE_NAMES.get(status.state, status.state)} {status.reason}".rstrip()
            said = f"its last status, {ago_s:.1f} s ago: {state}"
        return PolicyLost(f"policy {self.namespace!r} ({self.topic}): {what}; {said}. Fix: {self._fix}")

    def _on_chunk(self, message: ActionChunk) -> None:
        self._chunk = message

    def _on_status(self, message: PolicyStatus) -> None:
        self.status, self._status_s = message, time.monotonic()
