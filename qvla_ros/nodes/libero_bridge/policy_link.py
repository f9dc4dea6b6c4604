"""A robot's link to one policy node: it publishes observations and returns a chunk for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from qvla.msg import ActionChunk, PolicyStatus
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from qvla_ros.control.arm_order import JUST_AFTER_S
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import chunk_actions, stamp_message, stamp_ns
from qvla_ros.nodes.libero_bridge.observation_messages import (
    image_message,
    joint_state_message,
    pose_message,
)
from qvla_ros.simulation.faults import Sensed
from qvla_ros.simulation.specification import (
    ACTION_KIND,
    ACTION_NAMES,
    ACTION_UNITS,
    CAMERA_NAMES,
    CONTROL_PERIOD_S,
    POSE_FRAME,
)

WAIT_S = 0.02  # clocks and the graph are read at least this often
# Best-effort images can get lost: the observation is then published again, with a new stamp.
RESEND_PERIOD_S = 2.0
# An answer is dropped while the server has not matched the client's reader, so a service is called
# again.
ARM_TIMEOUT_S = 10.0
ARM_RETRY_S = 2.0
LAST_DISARM_S = 1.0
# The stages in "latency_ms" of a chunk that are computing time.
COMPUTING = ("preprocess", "inference", "postprocess")
_STATE_NAMES = {0: "WAITING", 1: "RUNNING", 2: "FAULT", 3: "INACTIVE"}


class PolicyLost(Exception):
    """No usable chunk: the policy is absent, gone, late, faulty or meant for another robot."""


class PolicyDisarmed(PolicyLost):
    """The policy is disarmed, so its chunk must not be executed."""


@dataclass(frozen=True)
class PolicyAnswer:
    """A chunk that may be executed. actions: float64 [K, 7].

    published_ns: when its observation was first published, node's clock. stamp_ns: of the image
    that it was computed from, clock of the stamps. computing_s: preprocessing, inference and
    postprocessing; NaN when the chunk does not report them.
    """

    actions: NDArray[np.float64]
    published_ns: int
    inference_ms: float
    stamp_ns: int
    computing_s: float


@dataclass
class _Request:
    """One observation that waits for its chunk; it may be sent more than once.

    taken_ns: stamp with which an image was sent -> when it was taken.
    """

    published_ns: int = -1
    last_stamp_ns: int = -1
    sent_s: float = float("-inf")
    taken_ns: dict[int, int] = field(default_factory=dict)


class PolicyLink:
    """The topics and the service of the policy node `/<namespace>/policy`.

    wait(seconds): serves the node's callbacks for that long. stamps_ns: the clock that stamps
    observations; None: the node's, which is system time.
    """

    def __init__(
        self,
        node: Node,
        namespace: str,
        wait: Callable[[float], None],
        stamps_ns: Callable[[], int] | None = None,
    ) -> None:
        self.namespace = namespace
        self._node = node
        self._wait = wait
        self._stamps_ns = self.now_ns if stamps_ns is None else stamps_ns
        root = f"/{namespace.strip('/')}"
        self._images = {
            name: node.create_publisher(Image, f"{root}/camera/{name}/image_raw", qos.SENSOR)
            for name in CAMERA_NAMES
        }
        self._joints = node.create_publisher(JointState, f"{root}/joint_states", qos.SENSOR)
        self._pose = node.create_publisher(PoseStamped, f"{root}/ee_pose", qos.SENSOR)
        self._instruction = node.create_publisher(String, f"{root}/instruction", qos.LATCHED)
        # Before the subscriptions: endpoints are discovered in order, so that a policy whose status
        # has arrived hears a call.
        self._arm: Any = node.create_client(SetBool, f"{root}/policy/arm")
        chunks = node.create_subscription(
            ActionChunk, f"{root}/policy/action_chunk", self._on_chunk, qos.COMMAND
        )
        node.create_subscription(
            PolicyStatus, f"{root}/policy/status", self._on_status, qos.LATCHED
        )
        self.topic = chunks.topic_name
        self.status: PolicyStatus | None = None
        self._chunk: ActionChunk | None = None
        self._seen = False
        self._status_s = 0.0
        self._maybe_armed = False
        self._armable_s = 0.0
        sim_time = "" if stamps_ns is None else " -p use_sim_time:=true"
        self._fix = (
            "start it with: python -m qvla_ros.nodes.policy --ros-args -p "
            f"bundle:=DIR -r __ns:={root}{sim_time}"
        )

    def now_ns(self) -> int:
        """Now on the node's clock."""
        return self._node.get_clock().now().nanoseconds

    def wait_until_ready(self, timeout_s: float) -> None:
        """Waits until the policy is active and hears the streams that it needs; else PolicyLost."""
        self._until(self._is_ready, timeout_s, "not ready")

    def publish_instruction(self, instruction: str) -> None:
        self._instruction.publish(String(data=instruction))

    def arm(self, armed: bool) -> None:
        """Arms or disarms the policy; PolicyLost when it does not answer or refuses.

        A node refuses to be armed just after a request to stop, so arming waits that long.
        """
        self._maybe_armed = True
        while armed and time.monotonic() < self._armable_s:
            self._wait(WAIT_S)
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
            raise self._lost(
                f"{self._arm.srv_name} refused: {'' if response is None else response.message}"
            )
        self._maybe_armed = armed
        if not armed:
            self._armable_s = time.monotonic() + 1.1 * JUST_AFTER_S

    def disarm_if_it_listens(self) -> None:
        """Asks an armed policy once to disarm, and waits at most LAST_DISARM_S."""
        if self._maybe_armed:
            call = self._arm.call_async(SetBool.Request(data=False))
            end_s = time.monotonic() + LAST_DISARM_S
            while not call.done() and time.monotonic() < end_s:
                self._wait(WAIT_S)

    def request(self, sensed: Sensed, instruction: str, timeout_s: float) -> PolicyAnswer:
        """Publishes an observation and waits for the armed chunk that answers it and follows the
        instruction.

        PolicyLost when none comes within `timeout_s`, when the policy vanishes or reports a fault,
        and when the chunk is not armed or not for this robot.
        """
        request = _Request()
        self._chunk = None
        self._until(
            lambda: self._answered(request, sensed, instruction),
            timeout_s,
            "no chunk for this observation",
        )
        return self._checked(self._chunk, request)

    def offer(self, sensed: Sensed, instruction: str, patience_s: float) -> PolicyAnswer | None:
        """Publishes an observation that deserves no answer; None if none comes in `patience_s`."""
        request = _Request()
        self._chunk = None
        end_s = time.monotonic() + patience_s
        while (
            not (answered := self._answered(request, sensed, instruction))
            and time.monotonic() < end_s
        ):
            self._wait(WAIT_S)
        return self._checked(self._chunk, request) if answered else None

    def _answered(self, request: _Request, sensed: Sensed, instruction: str) -> bool:
        """Whether the chunk has come; if not, publishes the observation when it is due (again)."""
        chunk = self._chunk
        self._chunk = None
        if chunk is not None and stamp_ns(chunk.header.stamp) in request.taken_ns:
            if chunk.instruction == instruction:
                self._chunk = chunk
                return True
            request.sent_s = float("-inf")  # computed before the instruction had arrived: ask again
        if time.monotonic() - request.sent_s > RESEND_PERIOD_S:
            self._publish(request, sensed)
        return False

    def _checked(self, chunk: Any, request: _Request) -> PolicyAnswer:
        try:
            actions = chunk_actions(
                chunk,
                self.topic,
                ACTION_KIND,
                ACTION_NAMES,
                ACTION_UNITS,
                POSE_FRAME,
                CONTROL_PERIOD_S,
            )
        except QvlaError as error:
            raise PolicyLost(f"policy {self.namespace!r}: {error}") from None
        if not chunk.armed:
            what = (
                "its chunk is marked disarmed; somebody called ~/arm with false, or "
                "it was restarted"
            )
            raise PolicyDisarmed(str(self._lost(what)))
        latency_ms = dict(zip(chunk.latency_names, chunk.latency_ms, strict=False))
        stages_ms = [float(latency_ms.get(stage, float("nan"))) for stage in COMPUTING]
        inference_ms = float(latency_ms.get("inference", float("nan")))
        taken_ns = request.taken_ns[stamp_ns(chunk.header.stamp)]
        return PolicyAnswer(
            actions, request.published_ns, inference_ms, taken_ns, 1e-3 * sum(stages_ms)
        )

    def _publish(self, request: _Request, sensed: Sensed) -> None:
        """Publishes all streams with the stamp of now: the arm stands still, so they are true.

        No stamp is used twice, even where the clock of the stamps stands still: a policy answers
        each moment once.
        """
        if request.published_ns < 0:
            request.published_ns = self.now_ns()
        now_ns = self._stamps_ns()
        sent_ns = max(now_ns, request.last_stamp_ns + 1)
        request.sent_s = time.monotonic()
        request.last_stamp_ns = sent_ns
        self._joints.publish(joint_state_message(sensed.observation, stamp_message(sent_ns)))
        self._pose.publish(pose_message(sensed.observation, stamp_message(sent_ns)))
        for name, pixels in sensed.observation.images.items():
            age_ns = sensed.image_ages_ns.get(name, 0)
            request.taken_ns[sent_ns - age_ns] = now_ns - age_ns
            self._images[name].publish(image_message(name, pixels, stamp_message(sent_ns - age_ns)))

    def _is_ready(self) -> bool:
        active = self.status is not None and self.status.state in (
            PolicyStatus.WAITING,
            PolicyStatus.RUNNING,
        )
        # A policy subscribes to the instruction last, and to those cameras and joints only that it
        # needs.
        return (
            active
            and self._arm.service_is_ready()
            and self._instruction.get_subscription_count() > 0
        )

    def _until(self, done: Callable[[], bool], timeout_s: float, failure: str) -> None:
        started_s = time.monotonic()
        while not done():
            waited_s = time.monotonic() - started_s
            if self.status is not None and self.status.state == PolicyStatus.FAULT:
                raise self._lost(f"{failure} after {waited_s:.1f} s")
            present = self._node.count_publishers(self.topic) > 0
            if self._seen and not present:
                raise self._lost(
                    f"its node is gone: nobody publishes on {self.topic} any more "
                    f"({waited_s:.1f} s)"
                )
            self._seen = self._seen or present
            if waited_s > timeout_s:
                raise self._lost(
                    f"{failure} within {waited_s:.1f} "
                    f"s{'' if present else '; its node is not there'}"
                )
            self._wait(WAIT_S)

    def _lost(self, what: str) -> PolicyLost:
        status = self.status
        last = "it never sent a status"
        if status is not None:
            ago_s = time.monotonic() - self._status_s
            state = f"{_STATE_NAMES.get(status.state, status.state)} {status.reason}".rstrip()
            last = f"its last status, {ago_s:.1f} s ago: {state}"
        return PolicyLost(
            f"policy {self.namespace!r} ({self.topic}): {what}; {last}. Fix: {self._fix}"
        )

    def _on_chunk(self, message: ActionChunk) -> None:
        self._chunk = message

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message
        self._status_s = time.monotonic()
