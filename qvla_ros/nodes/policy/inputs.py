"""The policy node's subscriptions: messages in, complete observations out, and the reason while
there is none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from qvla_ros.bundle import Bundle, CameraSpec
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError
from qvla_ros.messages.compressed_image import rgb_pixels_of_compressed
from qvla_ros.messages.image import rgb_pixels
from qvla_ros.messages.robot_state import (
    Measured,
    ToolPose,
    joint_positions,
    needed_joints,
    needs_pose,
    pose_in,
)
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.policy.handover import Handover
from qvla_ros.nodes.policy.snapshot import StreamHealth
from qvla_ros.nodes.policy.stream_statistics import StreamStatistics
from qvla_ros.nodes.policy.transforms import ToolTransforms
from qvla_ros.nodes.policy.worker import LatestOnlyWorker
from qvla_ros.observation import (
    Observation,
    Samples,
    Synchronizer,
    Waiting,
    proprioception_vector,
)
from qvla_ros.parameters.policy import InputParameters

_STOP_S = 1.0  # a decode or a transform takes milliseconds
_ANY_TIME_NS = 2**63 - 1  # stamp of what is not needed


class ObservationInputs:
    """Subscribes to what the bundle and the output need; calls `deliver(observation)` once per new,
    complete set.

    Topics are relative: `camera/<name>/image_raw` (or `.../image_raw/compressed`), `joint_states`,
    `ee_pose`, `instruction`. A message that cannot be used makes its topic count as missing, and
    `poll` says why. `hear(text)` is called with every instruction that arrives, and calls `follow`
    to put it, or another, in force, or raises a QvlaError if it cannot be followed. As long as none
    is in force, observations come with an empty one, for whoever watches over the inputs. All of it
    runs on the executor's thread, but for decoding images and waiting for transforms, which have
    threads of their own, and `measured`, `refusal` and `streams`, which any thread may call.
    """

    def __init__(
        self,
        node: Node,
        bundle: Bundle,
        parameters: InputParameters,
        deliver: Callable[[Observation], None],
        hear: Callable[[str], None] | None = None,
        measured: Measured | None = None,
    ) -> None:
        self._node = node
        self._bundle = bundle
        self._parameters = parameters
        self._measured = measured
        self._deliver = deliver
        self._names = () if bundle.proprioception is None else bundle.proprioception.names
        self._joints = needed_joints(bundle, measured)
        self._hear = self.follow if hear is None else hear
        self._instruction: str | None = None
        self._heard: str | None = None  # the last usable text
        self._followed = False  # any instruction yet
        self._refused: dict[str, str] = {}
        self._subscriptions: list[Any] = []
        self._workers: list[LatestOnlyWorker[Any]] = []
        reads_pose = needs_pose(bundle, measured)
        self._transforms: ToolTransforms | None = None
        if (
            reads_pose and parameters.pose_source == "tf"
        ):  # may fail: before anything is subscribed to
            frame = bundle.actions.frame
            self._transforms = ToolTransforms(
                node, frame, parameters.tool_frame, parameters.tf_timeout_s
            )
        self._handover = Handover(node)
        # The last usable joint positions and pose with their stamps; each is replaced whole, so any
        # thread may read.
        self._positions: tuple[dict[str, float], int] | None = None
        self._pose: tuple[ToolPose, int] | None = None
        self._camera_topics = {
            camera.name: self._subscribe_camera(camera) for camera in bundle.cameras
        }
        self._joint_topic = (
            self._subscribe(JointState, "joint_states", self._on_joints) if self._joints else None
        )
        self._locator: LatestOnlyWorker[int] | None = None
        self._pose_topic = self._follow_pose() if reads_pose else None
        streams = [
            *self._camera_topics.values(),
            *filter(None, (self._joint_topic, self._pose_topic)),
        ]
        self._synchronizer = Synchronizer(
            streams, parameters.max_stamp_spread_s, parameters.max_image_age_s
        )
        self._statistics = StreamStatistics(streams, time.monotonic())
        self._instruction_topic = self._subscribe(
            String, "instruction", self._on_instruction, qos.LATCHED
        )

    def poll(self) -> str:
        """Try again to complete an observation; why there can be none, or empty when the streams
        are fresh.

        Raises what went wrong on the threads for slow work since the last time.
        """
        self._handover.raise_error()
        if refusal := self.refusal():
            return refusal
        waiting = self._synchronizer.collect(self._now_ns())
        if isinstance(waiting, Waiting):
            return waiting.reason
        if isinstance(waiting, Samples):
            self._emit(waiting)
        return "" if self._instruction is not None else self._instruction_reason()

    def follow(self, instruction: str | None) -> None:
        """Give this instruction to the observations from here on; None: none is in force."""
        self._instruction = instruction
        self._followed |= instruction is not None

    def refusal(self) -> str:
        """Why the newest message of some topic cannot be used, else empty. From any thread."""
        return "; ".join(
            tuple(self._refused.values())
        )  # copied at once: the executor's thread may change it

    def measured(self) -> tuple[Setpoint, int] | None:
        """Where the arm is by its last messages, and the stamp of the oldest of them, ns. From any
        thread.

        None if nothing is to be measured, before the first message, and while the last one could
        not be used.
        """
        spec = self._measured
        if spec is None:
            return None
        positions = self._positions if spec.joint_names else ({}, _ANY_TIME_NS)
        pose = (None, _ANY_TIME_NS) if spec.joints else self._newest_pose()
        if positions is None or pose is None:
            return None
        return spec.setpoint(positions[0], pose[0]), min(positions[1], pose[1])

    def streams(self) -> tuple[StreamHealth, ...]:
        """Rate and age of each input. From any thread."""
        return self._statistics.health(self._now_ns(), time.monotonic())

    def destroy(self) -> None:
        """End all subscriptions and threads."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        for worker in self._workers:
            worker.stop(_STOP_S)
        self._workers.clear()
        self._handover.destroy()
        if self._transforms is not None:
            self._transforms.destroy()
        self._positions = self._pose = None

    # What is subscribed to.

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any = qos.SENSOR
    ) -> str:
        subscription = self._node.create_subscription(
            kind, topic, callback, **qos.subscribed(profile)
        )
        self._subscriptions.append(subscription)
        return subscription.topic_name

    def _subscribe_camera(self, camera: CameraSpec) -> str:
        topic = f"camera/{camera.name}/image_raw"
        if self._parameters.image_transport == "raw":
            return self._subscribe(Image, topic, partial(self._on_image, camera))
        decoder = self._worker(partial(self._decode, camera), f"decode {camera.name}")
        return self._subscribe(CompressedImage, f"{topic}/compressed", decoder.submit)

    def _follow_pose(self) -> str:
        if self._transforms is None:
            return self._subscribe(PoseStamped, "ee_pose", self._on_pose)
        self._locator = self._worker(self._locate, "transforms")
        return self._transforms.name

    def _worker(self, work: Callable[[Any], None], name: str) -> LatestOnlyWorker[Any]:
        self._workers.append(LatestOnlyWorker(work, name))
        return self._workers[-1]

    # Messages: on the executor's thread.

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        topic = self._camera_topics[camera.name]
        self._on_pixels(
            topic, message, lambda: rgb_pixels(message, topic, camera.height, camera.width)
        )

    def _on_pixels(self, topic: str, message: Any, pixels: Callable[[], Any]) -> None:
        if self._locator is not None and topic == self._camera_topics[self._bundle.cameras[0].name]:
            self._locator.submit(stamp_ns(message.header.stamp))
        self._put(topic, stamp_ns(message.header.stamp), pixels)

    def _on_joints(self, message: JointState) -> None:
        assert self._joint_topic is not None
        topic = self._joint_topic
        moment_ns = stamp_ns(message.header.stamp)
        self._positions = self._put(
            topic, moment_ns, lambda: joint_positions(message, topic, self._joints)
        )

    def _on_pose(self, message: PoseStamped) -> None:
        assert self._pose_topic is not None
        topic = self._pose_topic
        frame = self._bundle.actions.frame
        self._pose = self._put(
            topic, stamp_ns(message.header.stamp), lambda: pose_in(message, topic, frame)
        )

    def _on_instruction(self, message: String) -> None:
        if not message.data.strip():
            # Of no concern to a goal, which has brought its own instruction, nor to whoever waits
            # for one to come.
            topic = self._instruction_topic
            if self._instruction is not None and self._instruction == self._heard:
                self._refused[topic] = (
                    f"empty text on {topic}; expected a sentence that names the task"
                )
            return
        try:
            self._hear(message.data)
        except QvlaError as error:
            self._refused[self._instruction_topic] = f"on {self._instruction_topic}: {error}"
            return
        self._heard = message.data
        self._refused.pop(self._instruction_topic, None)
        self._advance()

    # Slow work: on its own threads, which hand the result to the executor's.

    def _decode(self, camera: CameraSpec, message: CompressedImage) -> None:
        topic = self._camera_topics[camera.name]
        pixels = _outcome(
            lambda: rgb_pixels_of_compressed(message, topic, camera.height, camera.width)
        )
        self._handover.post(topic, lambda: self._on_pixels(topic, message, pixels))

    def _locate(self, moment_ns: int) -> None:
        transforms = self._transforms
        topic = self._pose_topic
        if transforms is not None and topic is not None:
            pose = _outcome(lambda: transforms.at(moment_ns))
            self._handover.post(topic, lambda: self._put(topic, moment_ns, pose))

    def _newest_pose(self) -> tuple[ToolPose, int] | None:
        if self._transforms is None:
            return self._pose
        try:
            return self._transforms.newest()
        except QvlaError:
            return None

    # Observations.

    def _put(
        self, topic: str, moment_ns: int, convert: Callable[[], Any]
    ) -> tuple[Any, int] | None:
        """Add what `convert` gives to the stream, which may complete an observation. None when it
        cannot be used.
        """
        try:
            value = convert()
        except QvlaError as error:
            self._refused[topic] = str(error)
            self._synchronizer.discard(topic)
            return None
        self._refused.pop(topic, None)
        self._statistics.note(topic, moment_ns, time.monotonic())
        self._synchronizer.put(topic, moment_ns, value)
        self._advance()
        return value, moment_ns

    def _advance(self) -> None:
        if self._refused:
            return
        samples = self._synchronizer.collect(self._now_ns())
        if isinstance(samples, Samples):
            self._emit(samples)

    def _emit(self, samples: Samples) -> None:
        if self._refused:
            return
        images = {name: samples.values[topic] for name, topic in self._camera_topics.items()}
        joints = {} if self._joint_topic is None else samples.values[self._joint_topic]
        pose = None if self._pose_topic is None else samples.values[self._pose_topic]
        position, quaternion = (
            (None, None) if pose is None else (pose.position_m, pose.quaternion_xyzw)
        )
        proprioception = proprioception_vector(self._names, joints, position, quaternion)
        newest_ns = max(samples.stamps_ns[topic] for topic in self._camera_topics.values())
        self._deliver(
            Observation(
                images, proprioception, self._instruction or "", newest_ns, samples.stamps_ns
            )
        )

    def _instruction_reason(self) -> str:
        topic = self._instruction_topic
        if self._followed:
            return (
                "the last task is over: send another goal, call ~/start, or publish an "
                f"instruction on {topic}"
            )
        return (
            f"no instruction received yet on {topic}: publish a std_msgs/String there, "
            "reliable and transient local, "
            f"e.g. ros2 topic pub --qos-durability transient_local {topic} std_msgs/String "
            "\"data: 'pick up the milk'\""
        )

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds


def _outcome(work: Callable[[], Any]) -> Callable[[], Any]:
    """Do `work` now; what is returned gives its result, or raises its error, when called."""
    try:
        value = work()
    except Exception as error:
        failure = error

        def fail() -> Any:
            raise failure

        return fail
    return lambda: value
