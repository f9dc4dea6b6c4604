"""The end effector's pose from TF instead of a topic, for robots that publish only transforms."""

from __future__ import annotations

from typing import Any

from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import ToolPose, checked_pose


class ToolTransforms:
    """Listens to /tf and /tf_static and says where `tool_frame` is in `frame`.

    QvlaError without tf2_ros.

    `at` waits, so it is for a worker's thread: the executor's thread must be free to receive the
    transform.
    """

    def __init__(self, node: Node, frame: str, tool_frame: str, timeout_s: float) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            fix = (
                "install tf2_ros (apt: ros-$ROS_DISTRO-tf2-ros-py), or publish ee_pose "
                "and set pose_source:=topic"
            )
            raise QvlaError(
                "parameter pose_source", f"tf ({error})", "an environment with tf2_ros", fix
            ) from None
        if not tool_frame:
            fix = "-p tool_frame:=FRAME, the frame whose pose the policy was trained on"
            raise QvlaError(
                "parameter tool_frame", "nothing", "a frame that TF knows, with pose_source tf", fix
            )
        self._frame = frame
        self._tool_frame = tool_frame
        self._timeout = Duration(seconds=timeout_s)
        self._errors: Any = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self.name = f"/tf ({frame} to {tool_frame})"

    def at(self, stamp_ns: int) -> ToolPose:
        """The pose at that moment, waiting up to timeout_s for the transforms around it.

        QvlaError without them.
        """
        return self._lookup(
            Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME), self._timeout
        )[0]

    def newest(self) -> tuple[ToolPose, int]:
        """The newest pose and its stamp, without waiting; QvlaError while there is none."""
        return self._lookup(Time(), Duration())

    def destroy(self) -> None:
        """Ends the subscriptions."""
        self._listener.unregister()

    def _lookup(self, time: Time, timeout: Duration) -> tuple[ToolPose, int]:
        try:
            found = self._buffer.lookup_transform(self._frame, self._tool_frame, time, timeout)
        except self._errors as error:
            expected = f"where {self._tool_frame!r} is in {self._frame!r}"
            fix = (
                "start robot_state_publisher, or correct tool_frame and the bundle's "
                "frame; raise tf_timeout_s"
            )
            raise QvlaError("/tf", str(error), expected, fix) from None
        position = found.transform.translation
        rotation = found.transform.rotation
        pose = checked_pose(position, rotation, self.name)
        return pose, Time.from_msg(found.header.stamp).nanoseconds
