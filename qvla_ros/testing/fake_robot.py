"""A robot without physics, to test a policy node on: it publishes, obeys, and fails on demand.

It has two threads: one publishes, one takes commands. As a process of its own, which can be killed:
`python -m qvla_ros.testing.fake_robot --bundle DIR --namespace x --output pose --rate_hz 40`.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from qvla.msg import PolicyStatus
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.control import rotation
from qvla_ros.control.outputs import OUTPUTS, Output
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message, stamp_ns
from qvla_ros.nodes.libero_bridge.observation_messages import image_message
from qvla_ros.nodes.policy.outputs.publisher import message_class
from qvla_ros.nodes.process import destroy
from qvla_ros.observation import POSE_NAMES, joint_names
from qvla_ros.testing.stop_command import Command

INSTRUCTION = "pick up the milk"
LONGEST_STEP_S = 0.1  # a twist is obeyed for no longer than this


@dataclass
class Quirks:
    """The faults of the robot at the moment.

    slip: what the measured height, and the moving joints, are wrong by, m or rad. ahead_s: how far
    in the future stamps lie. stuck: it takes velocities and does not move. ready: what it says on
    the topic `ready`. deadman: what is published on ~/enable in every period; None: nothing.
    """

    cameras_silent: bool = False
    all_silent: bool = False
    wrong_size: bool = False
    frozen: bool = False
    nan_joints: bool = False
    slip: float = 0.0
    ahead_s: float = 0.0
    clock_jump_s: float = 0.0
    stuck: bool = False
    ready: bool = True
    deadman: bool | None = None


class FakeRobot:
    """Publishes what `bundle` needs to the policy node `/<namespace>/policy`, `rate_hz` times a
    second.

    output: a name of OUTPUTS, as the policy node's; commanded joints are reported beside the
    bundle's. sim_time: it publishes /clock and stamps with it.
    """

    def __init__(
        self,
        context: Context,
        bundle: Bundle,
        namespace: str,
        output: str,
        rate_hz: float,
        sim_time: bool = False,
    ) -> None:
        self.output = output
        self.quirks = Quirks()
        self.commands: list[Command] = []
        self.statuses: list[PolicyStatus] = []
        self.node = Node("fake_robot", context=context, namespace=namespace)
        self._bundle = bundle
        self._period_s = 1.0 / rate_hz
        self._sim_time = sim_time
        state = _middle_state(bundle)
        self._position = np.array([state.get(name, 0.1) for name in POSE_NAMES[:3]])
        turn = [state.get(name, 0.0) for name in POSE_NAMES[3:]]
        self._quaternion = rotation.from_rotation_vector(turn)
        command = OUTPUTS[output]
        self._joints = _joint_positions(bundle, command)
        self._trajectory: JointTrajectory | None = None
        self._pixels = {
            c.name: np.full((c.height, c.width, 3), 90, np.uint8) for c in bundle.cameras
        }
        publisher = self.node.create_publisher
        self._images = {
            c.name: publisher(Image, f"camera/{c.name}/image_raw", qos.SENSOR)
            for c in bundle.cameras
        }
        self._joint_states = publisher(JointState, "joint_states", qos.SENSOR)
        self._pose = publisher(PoseStamped, "ee_pose", qos.SENSOR)
        self._enable = publisher(Bool, "policy/enable", qos.COMMAND)
        self._ready = publisher(Bool, "ready", qos.LATCHED)
        self._clock = publisher(Clock, "/clock", qos.SENSOR) if sim_time else None
        self._instruction = publisher(String, "instruction", qos.LATCHED)
        self.publish_instruction(INSTRUCTION)
        subscribe = self.node.create_subscription
        kind = message_class(command.message_type)
        subscribe(kind, "policy/command", self._on_command, 100)
        subscribe(PolicyStatus, "policy/status", self.statuses.append, qos.LATCHED)
        self._stopping = threading.Event()
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._stream, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def publish_instruction(self, instruction: str) -> None:
        self._instruction.publish(String(data=instruction))

    def close(self) -> None:
        """Ends the threads and the node."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        destroy(self.node, self._executor)

    def call(self, client: Any, request: Any, timeout_s: float) -> Any:
        """A service's answer; None if it does not come in time. Not from a callback."""
        if not client.wait_for_service(timeout_sec=timeout_s):
            return None
        future = client.call_async(request)
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        return future.result() if answered.wait(timeout_s) else None

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.05)
            except ExternalShutdownException:
                return

    def _stream(self) -> None:
        while not self._stopping.wait(self._period_s):
            now_ns = self._now_ns()
            if self._clock is not None:
                self._clock.publish(Clock(clock=stamp_message(now_ns)))
            if self.quirks.deadman is not None:
                self._enable.publish(Bool(data=self.quirks.deadman))
            self._ready.publish(Bool(data=self.quirks.ready))
            if not self.quirks.all_silent:
                self._publish(stamp_message(now_ns + round(1e9 * self.quirks.ahead_s)))

    def _publish(self, stamp: Any) -> None:
        # Both are replaced as a whole by the thread that listens.
        positions = {**self._joints, **_joints_on(self._trajectory, stamp_ns(stamp))}
        moving = _moving_joints(self._bundle)
        slips = {name: self.quirks.slip for name in positions if name in moving}
        measured = [place + slips.get(name, 0.0) for name, place in positions.items()]
        joints = JointState(name=list(positions), position=measured)
        joints.header.stamp = stamp
        if self.quirks.nan_joints:
            joints.position[0] = float("nan")
        self._joint_states.publish(joints)
        pose = PoseStamped()
        pose.header.stamp = stamp
        pose.header.frame_id = self._bundle.actions.frame
        place = pose.pose.position
        turn = pose.pose.orientation
        place.x, place.y, place.z = self._position.tolist()
        place.z -= self.quirks.slip
        turn.x, turn.y, turn.z, turn.w = self._quaternion.tolist()
        self._pose.publish(pose)
        for name, publisher in self._images.items():
            if not self.quirks.cameras_silent:
                pixels = self._pixels[name]
                if not self.quirks.frozen:
                    pixels[0, 0] += 1  # no two pictures are alike
                pixels = pixels[: len(pixels) // 2] if self.quirks.wrong_size else pixels
                publisher.publish(image_message(name, pixels, stamp))

    def _on_command(
        self, message: PoseStamped | TwistStamped | JointTrajectory | Float64MultiArray
    ) -> None:
        now_s = time.monotonic()
        if isinstance(message, JointTrajectory):
            numbers = np.array(message.points[-1].positions)
            self._trajectory = message
        elif isinstance(message, Float64MultiArray):
            numbers = np.array(message.data)
            names = _moving_joints(self._bundle)
            self._joints = {**self._joints, **dict(zip(names, numbers.tolist(), strict=True))}
        elif isinstance(message, PoseStamped):
            place = message.pose.position
            turn = message.pose.orientation
            self._position = np.array([place.x, place.y, place.z])
            self._quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
            numbers = np.concatenate([self._position, self._quaternion])
        else:
            linear = message.twist.linear
            angular = message.twist.angular
            numbers = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
            passed_s = (
                min(now_s - self.commands[-1].arrived_s, LONGEST_STEP_S) if self.commands else 0.0
            )
            passed_s = 0.0 if self.quirks.stuck else passed_s
            self._position = self._position + passed_s * numbers[:3]
            self._quaternion = rotation.turn(self._quaternion, passed_s * numbers[3:])
        header = getattr(message, "header", None)  # an array has none
        sent_ns = 0 if header is None else stamp_ns(header.stamp)
        is_trajectory = isinstance(message, JointTrajectory)
        self.commands.append(Command(now_s, sent_ns, numbers, is_trajectory))

    def _now_ns(self) -> int:
        if not self._sim_time:
            return time.time_ns()
        return time.monotonic_ns() + round(1e9 * self.quirks.clock_jump_s)


def _joints_on(trajectory: JointTrajectory | None, now_ns: int) -> dict[str, float]:
    """Where the joints of a trajectory are at one moment, on the lines between its points."""
    if trajectory is None:
        return {}
    times_s = [
        point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec
        for point in trajectory.points
    ]
    columns = np.array([point.positions for point in trajectory.points]).T
    since_s = 1e-9 * (now_ns - stamp_ns(trajectory.header.stamp))
    return {
        name: float(np.interp(since_s, times_s, column))
        for name, column in zip(trajectory.joint_names, columns, strict=True)
    }


def _moving_joints(bundle: Bundle) -> list[str]:
    """The names of the actions' columns except the gripper's: joints where they move joints."""
    gripper = bundle.actions.gripper_index
    return [name for index, name in enumerate(bundle.actions.names) if index != gripper]


def _middle_state(bundle: Bundle) -> dict[str, float]:
    """Each number that the policy reads, in the middle of its training data."""
    if bundle.proprioception is None:
        return {}
    statistics = bundle.statistics["proprio"]
    middle = 0.5 * (statistics.low + statistics.high)
    return dict(zip(bundle.proprioception.names, middle.tolist(), strict=True))


def _joint_positions(bundle: Bundle, output: Output) -> dict[str, float]:
    """Returns where each joint is at first, by name: those the policy reads or commands."""
    names = () if bundle.proprioception is None else bundle.proprioception.names
    state = _middle_state(bundle)
    positions = {name: state[name] for name in joint_names(names)}
    if output.moves == "joints":
        positions |= dict.fromkeys(_moving_joints(bundle), 0.0)
    return positions


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--namespace", default="")
    parser.add_argument("--output", choices=OUTPUTS, default="pose")
    parser.add_argument("--rate_hz", type=float, default=40.0)
    args = parser.parse_args()
    with rclpy.init() as context:
        robot = FakeRobot(
            context.context, load_bundle(args.bundle), args.namespace, args.output, args.rate_hz
        )
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            robot.close()


if __name__ == "__main__":
    main()
