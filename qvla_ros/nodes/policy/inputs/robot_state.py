"""Joints and the end effector's pose: what the policy reads of them, and where the arm is."""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from qvla_ros.bundle import Bundle
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError
from qvla_ros.messages.joint_merge import WINDOW_S, JointMerge
from qvla_ros.messages.robot_state import (
    Measured,
    ToolPose,
    arm_joints,
    needed_joints,
    needs_pose,
    pose_in,
)
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.policy.inputs.streams import Streams, outcome
from qvla_ros.nodes.policy.inputs.transforms import ToolTransforms
from qvla_ros.nodes.worker import LatestOnlyWorker
from qvla_ros.parameters.policy import InputParameters

_ANY_TIME_NS = 2**63 - 1  # stamp of what is not needed


class RobotState:
    """joint_topic, pose_topic: None where nothing is read of them.

    TF is waited for on a thread of its own.
    """

    def __init__(
        self,
        streams: Streams,
        node: Node,
        bundle: Bundle,
        parameters: InputParameters,
        measured: Measured | None,
    ) -> None:
        self._streams = streams
        self._frame = bundle.actions.frame
        self._measured = measured
        self._joints = needed_joints(bundle, measured)
        window_s = min(WINDOW_S, parameters.max_image_age_s)
        self._merge = JointMerge(self._joints, arm_joints(bundle, measured), window_s)
        # The last usable joint positions and pose with their stamps; each is replaced whole, so any
        # thread may read.
        self._positions: tuple[dict[str, float], int] | None = None
        self._pose: tuple[ToolPose, int] | None = None
        self._transforms: ToolTransforms | None = None
        self._locator: LatestOnlyWorker[int] | None = None
        self.joint_topic: str | None = None
        self.pose_topic: str | None = None
        reads_pose = needs_pose(bundle, measured)
        if reads_pose and parameters.pose_source == "tf":
            # May fail: before anything is subscribed to.
            self._transforms = ToolTransforms(
                node, self._frame, parameters.tool_frame, parameters.tf_timeout_s
            )
            self._locator = streams.worker(self._locate, "transforms")
            self.pose_topic = self._transforms.name
        elif reads_pose:
            self.pose_topic = streams.subscribe(PoseStamped, "ee_pose", self._on_pose)
        if self._joints:
            self.joint_topic = streams.subscribe(JointState, "joint_states", self._on_joints)

    def locate(self, moment_ns: int) -> None:
        """Look up the pose of an image's moment, if it comes from TF."""
        if self._locator is not None:
            self._locator.submit(moment_ns)

    def measured(self) -> tuple[Setpoint, int] | None:
        """Where the arm is by its last messages, and the stamp of the oldest of them, ns.

        From any thread.

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

    def destroy(self) -> None:
        """Ends the look-up of transforms and forgets the state; after the streams have ended."""
        if self._transforms is not None:
            self._transforms.destroy()
        self._positions = None
        self._pose = None

    def _on_joints(self, message: JointState) -> None:
        assert self.joint_topic is not None
        topic = self.joint_topic
        moment_ns = stamp_ns(message.header.stamp)
        if self._merge.is_foreign(message):
            return
        positions = outcome(lambda: self._merge.add(message, topic, moment_ns))
        self._positions = self._streams.put(topic, self._merge.stamp_ns, positions)

    def _on_pose(self, message: PoseStamped) -> None:
        assert self.pose_topic is not None
        topic = self.pose_topic
        moment_ns = stamp_ns(message.header.stamp)
        self._pose = self._streams.put(
            topic, moment_ns, lambda: pose_in(message, topic, self._frame)
        )

    def _locate(self, moment_ns: int) -> None:
        """Looks up the pose; runs on the thread that waits for transforms."""
        transforms = self._transforms
        topic = self.pose_topic
        if transforms is not None and topic is not None:
            pose = outcome(lambda: transforms.at(moment_ns))
            self._streams.post(topic, lambda: self._streams.put(topic, moment_ns, pose))

    def _newest_pose(self) -> tuple[ToolPose, int] | None:
        if self._transforms is None:
            return self._pose
        try:
            return self._transforms.newest()
        except QvlaError:
            return None
