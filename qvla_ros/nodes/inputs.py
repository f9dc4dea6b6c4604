"""The policy node's subscriptions: messages in, complete observations out, and the reason while there is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import Pose, PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from qvla_ros.bundle import Bundle, CameraSpec
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.image_message import rgb_pixels
from qvla_ros.observation import (
    POSE_NAMES,
    Observation,
    Samples,
    Synchronizer,
    Waiting,
    joint_names,
    proprioception_vector,
)


class ObservationInputs:
    """Subscribes to what the bundle needs and calls `deliver(observation)` once per new, complete, fresh set.

    Runs on the executor's thread only. Topics are relative: `camera/<name>/image_raw`, `joint_states`, `ee_pose`,
    `instruction`. A message that cannot be used makes its topic count as missing, and `poll` says why.
    """

    def __init__(
        self,
        node: Node,
        bundle: Bundle,
        max_spread_s: float,
        max_age_s: float,
        deliver: Callable[[Observation], None],
    ) -> None:
        self._node, self._bundle, self._deliver = node, bundle, deliver
        self._names = () if bundle.proprioception is None else bundle.proprioception.names
        self._joints = joint_names(self._names)
        self._instruction: str | None = None
        self._refused: dict[str, str] = {}
        self._subscriptions: list[Any] = []
        self._camera_topics: dict[str, str] = {}
        for camera in bundle.cameras:
            callback = partial(self._on_image, camera)
            self._camera_topics[camera.name] = self._subscribe(Image, f"camera/{camera.name}/image_raw", callback)
        self._joint_topic = self._subscribe(JointState, "joint_states", self._on_joints) if self._joints else None
        needs_pose = any(name in POSE_NAMES for name in self._names)
        self._pose_topic = self._subscribe(PoseStamped, "ee_pose", self._on_pose) if needs_pose else None
        streams = [*self._camera_topics.values(), *filter(None, (self._joint_topic, self._pose_topic))]
        self._synchronizer = Synchronizer(streams, max_spread_s, max_age_s)
        self._instruction_topic = self._subscribe(String, "instruction", self._on_instruction, qos.LATCHED)

    def poll(self) -> str:
        """Try again to complete an observation; why there can be none, or empty when the streams are fresh."""
        if self._refused:
            return "; ".join(self._refused.values())
        waiting = self._synchronizer.collect(self._now_ns())
        if isinstance(waiting, Waiting):
            return waiting.reason
        if isinstance(waiting, Samples):
            self._emit(waiting)
        return "" if self._instruction is not None else self._instruction_reason()

    def destroy(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any = qos.SENSOR) -> str:
        options = qos.overridable()
        subscription = self._node.create_subscription(kind, topic, callback, profile, qos_overriding_options=options)
        self._subscriptions.append(subscription)
        return subscription.topic_name

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        topic = self._camera_topics[camera.name]
        self._put(topic, message, lambda: rgb_pixels(message, topic, camera.height, camera.width))

    def _on_joints(self, message: JointState) -> None:
        if self._joint_topic is not None:
            self._put(self._joint_topic, message, lambda: self._joint_positions(message))

    def _on_pose(self, message: PoseStamped) -> None:
        if self._pose_topic is not None:
            self._put(self._pose_topic, message, lambda: self._pose(message))

    def _on_instruction(self, message: String) -> None:
        if not message.data.strip():
            expected = "a sentence that names the task"
            self._refused[self._instruction_topic] = f"empty text on {self._instruction_topic}; expected {expected}"
            return
        self._refused.pop(self._instruction_topic, None)
        self._instruction = message.data
        self._advance()

    def _put(self, topic: str, message: Any, convert: Callable[[], Any]) -> None:
        try:
            value = convert()
        except QvlaError as error:
            self._refused[topic] = str(error)
            self._synchronizer.discard(topic)
            return
        self._refused.pop(topic, None)
        self._synchronizer.put(topic, stamp_ns(message.header.stamp), value)
        self._advance()

    def _pose(self, message: PoseStamped) -> Pose:
        found, frame = message.header.frame_id, self._bundle.actions.frame
        if found != frame:
            fix = f"transform the pose into {frame!r}, or name that frame if it is in it already"
            raise QvlaError(f"frame_id on {self._pose_topic}", repr(found), f"{frame!r}, the bundle's frame", fix)
        return message.pose

    def _joint_positions(self, message: JointState) -> dict[str, float]:
        if len(message.name) != len(message.position):
            found = f"{len(message.name)} names, {len(message.position)} positions"
            fix = "correct the driver that fills the message"
            raise QvlaError(f"joints on {self._joint_topic}", found, "one position a name", fix)
        lacking = [name for name in self._joints if name not in message.name]
        if lacking:
            fix = f"publish them under these names, or remap {self._joint_topic} to the topic that has them"
            raise QvlaError(f"joints on {self._joint_topic}", list(message.name), f"also {', '.join(lacking)}", fix)
        return dict(zip(message.name, message.position, strict=True))

    def _advance(self) -> None:
        if self._instruction is None or self._refused:
            return
        samples = self._synchronizer.collect(self._now_ns())
        if isinstance(samples, Samples):
            self._emit(samples)

    def _emit(self, samples: Samples) -> None:
        if self._instruction is None or self._refused:
            return
        images = {name: samples.values[topic] for name, topic in self._camera_topics.items()}
        joints = {} if self._joint_topic is None else samples.values[self._joint_topic]
        position = quaternion = None
        if self._pose_topic is not None:
            pose = samples.values[self._pose_topic]
            position = (pose.position.x, pose.position.y, pose.position.z)
            quaternion = (pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w)
        proprioception = proprioception_vector(self._names, joints, position, quaternion)
        newest_ns = max(samples.stamps_ns[topic] for topic in self._camera_topics.values())
        self._deliver(Observation(images, proprioception, self._instruction, newest_ns, samples.stamps_ns))

    def _instruction_reason(self) -> str:
        topic = self._instruction_topic
        return (
            f"no instruction received yet on {topic}: publish a std_msgs/String there, reliable and transient local, "
            f"e.g. ros2 topic pub --qos-durability transient_local {topic} std_msgs/String \"data: 'pick up the milk'\""
        )

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
