"""The commander turns plans into commands on its own thread, and ends them with one stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.commander import Commander
from qvla_ros.nodes.policy.commands import Sources
from qvla_ros.nodes.policy.grippers.position import PositionGripper
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import from_values

PATIENCE_S = 60.0
ACTIONS = ActionSpec(
    ("a", "b"), "joint_position", "base", ("rad", "rad"), None, None, 4, 0.05, "q99"
)
PARAMETERS_GIVEN = {
    "output": "joint_trajectory",
    "output_topic": "command",
    "joints": ["shoulder", "elbow"],
    "linear_low": [-2.0],
    "linear_high": [2.0],
    "max_image_age_s": 30.0,
    "max_linear_lead": 10.0,
    "max_stall_s": 30.0,
    "use_sim_time": False,
}


def given(**parameters: Any) -> PolicyParameters:
    return from_values(PolicyParameters, {**PARAMETERS_GIVEN, **parameters})


class Arm:
    """A commander and what it sends; `measure` may be replaced."""

    def __init__(self, node: Node, **parameters: Any) -> None:
        self.node = node
        self.heard: list[JointTrajectory] = []
        node.create_subscription(JointTrajectory, "command", self.heard.append, 1000)
        self.commander = Commander(node, given(**parameters), ACTIONS)
        self.looked_s: list[float] = []
        self.measure: Callable[[], tuple[Setpoint, int] | None] = self.at_rest
        self.refused = ""
        self.commander.start(Sources(lambda: self.measure(), lambda: self.refused, lambda: 0.0))
        self.commander.observe(self.now_ns())
        self.wait(lambda: node.count_subscribers("command") == 1)
        self.wait(lambda: len(self.looked_s) > 3 and self.looked_s[-2] - self.looked_s[1] >= REST_S)

    def at_rest(self) -> tuple[Setpoint, int]:
        self.looked_s.append(time.monotonic())
        return Setpoint(np.zeros(2)), time.monotonic_ns()

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def move(self) -> None:
        self.commander.arm()
        plan = np.full((1000, 2), 1.5)
        self.commander.plan(PlannedChunk(self.now_ns() + 1, 0.05, plan))
        self.wait(lambda: len(self.heard) >= 5)

    def wait(self, condition: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def listen(self) -> None:
        """Take what is on its way."""
        for _ in range(10):
            rclpy.spin_once(self.node, timeout_sec=0.02)

    @property
    def positions(self) -> list[list[float]]:
        """Where each trajectory would come to rest."""
        return [list(message.points[-1].positions) for message in self.heard]


@pytest.fixture
def node(ros_environment: dict[str, str]) -> Iterator[Node]:
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    # the tests look at each command
    every = Parameter("qos_overrides./command.publisher.depth", value=1000)
    node = rclpy.create_node("x", parameter_overrides=[every])
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_joints_are_moved_within_limits_and_brake_at_the_end(node: Node) -> None:
    arm = Arm(node)
    arm.move()
    arm.commander.finish(StopReason.deactivated)
    arm.listen()
    velocities = np.array([point.velocities for sent in arm.heard for point in sent.points])
    assert 0 < velocities.max() <= 0.25 + 1e-12  # max_linear_velocity
    assert list(arm.heard[-1].points[-1].velocities) == [0.0, 0.0]
    assert 0 < arm.positions[-1][0] <= arm.positions[-2][0] < 1.5
    figures = arm.commander.figures()
    assert figures.last_stop is not None
    assert figures.last_stop.reason is StopReason.deactivated
    assert figures.interventions["acceleration"] > 0
    count = len(arm.heard)
    arm.listen()
    assert len(arm.heard) == count
    arm.commander.destroy()


def test_an_arm_that_was_never_told_anything_is_not_told_to_hold(node: Node) -> None:
    arm = Arm(node)
    arm.commander.arm()
    arm.commander.finish(StopReason.shutdown)
    arm.listen()
    assert arm.heard == []
    assert arm.commander.figures().commands_sent == 0
    arm.commander.destroy()


def test_a_control_thread_that_fails_stops_the_arm_and_says_why(node: Node) -> None:
    arm = Arm(node)
    arm.move()

    def broken() -> None:
        raise ZeroDivisionError("the encoder")

    arm.measure = broken
    arm.wait(lambda: arm.commander.error)
    arm.listen()
    stop = arm.commander.figures().last_stop
    assert stop is not None
    assert stop.reason is StopReason.internal_error
    assert "ZeroDivisionError: the encoder" in arm.commander.error
    assert not arm.commander.armed
    assert arm.positions[-1][0] <= arm.positions[-2][0]
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()


def test_what_was_wrong_with_an_input_is_known_after_it_is_well_again(node: Node) -> None:
    arm = Arm(node)
    arm.move()
    arm.refused = "joints on /joint_states: got nan"
    arm.wait(lambda: arm.commander.figures().last_stop)
    arm.refused = ""
    arm.wait(lambda: not arm.commander.is_stopping())
    figures = arm.commander.figures()
    assert figures.reason is StopReason.bad_input
    assert figures.detail == "joints on /joint_states: got nan"
    arm.commander.arm()
    assert arm.commander.figures().detail == ""
    arm.commander.disarm(StopReason.crowded, "2 publishers")
    arm.wait(lambda: arm.commander.figures().reason)
    assert arm.commander.figures().detail == "2 publishers"
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()


def test_arming_needs_a_measured_arm_and_usable_inputs(node: Node) -> None:
    arm = Arm(node, deadman=True)
    with pytest.raises(QvlaError, match="deadman is not held"):
        arm.commander.arm()
    arm.measure = lambda: None
    with pytest.raises(QvlaError, match="measured"):
        arm.commander.arm()
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()


@pytest.mark.parametrize(
    "values", [{"linear_low": []}, {"linear_high": [1.0, 2.0, 3.0]}, {"linear_scale": 0.5}]
)
def test_a_commander_without_a_workspace_or_with_the_wrong_numbers_is_refused(
    node: Node, values: dict
) -> None:
    with pytest.raises(QvlaError, match=next(iter(values))):
        Commander(node, given(**values), ACTIONS)


def test_a_stop_before_the_first_command_says_why_and_counts_go_on_in_the_next(node: Node) -> None:
    arm = Arm(node)
    assert arm.commander.figures().reason is None
    arm.commander.arm()
    arm.commander.disarm(StopReason.cancelled)
    arm.wait(lambda: arm.commander.figures().reason)
    figures = arm.commander.figures()
    assert (figures.reason, figures.last_stop) == (StopReason.cancelled, None)
    arm.move()
    assert arm.commander.figures().reason is None
    arm.commander.finish(StopReason.deactivated)
    earlier = arm.commander.figures()
    assert earlier.reason is StopReason.deactivated
    arm.commander.destroy()
    later = Commander(node, given(), ACTIONS, earlier).figures()
    assert (later.commands_sent, later.interventions) == (
        earlier.commands_sent,
        earlier.interventions,
    )


def test_the_gripper_is_told_that_commands_begin_anew(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(PositionGripper, "begin", lambda gripper: begun.append(True))
    monkeypatch.setattr(
        "qvla_ros.nodes.policy.commander.make_gripper",
        lambda *_: PositionGripper(node, "fingers", 0.0, 1.0),
    )
    arm = Arm(node)
    arm.commander.arm()
    arm.commander.disarm(StopReason.disarmed)
    arm.commander.arm()
    assert len(begun) == 2
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"control_hz": 0.5}, "max_command_age_s = 0.5"),
        ({"control_hz": 2.5, "deadman": True}, "deadman_timeout_s = 0.3"),
        ({"control_hz": 0.0, "max_clock_jump_s": 0.01}, "max_clock_jump_s = 0.01"),
    ],
)
def test_a_control_thread_that_is_too_slow_for_a_limit_is_refused(
    node: Node, values: dict, limit: str
) -> None:
    with pytest.raises(QvlaError, match=rf"parameter control_hz: got .*within {limit} s"):
        Commander(node, given(**values), ACTIONS)


def test_a_robot_is_armed_once_it_says_that_it_is_ready_and_stopped_when_it_says_no(
    node: Node,
) -> None:
    latched = node.create_publisher(Bool, "ready", qos.LATCHED)
    arm = Arm(node, ready_topic="ready")
    with pytest.raises(QvlaError, match="ready_topic"):
        arm.commander.arm()
    latched.publish(Bool(data=True))

    def is_armed() -> bool:
        with suppress(QvlaError):
            arm.commander.arm()
        return arm.commander.armed

    arm.wait(is_armed)
    arm.move()
    latched.publish(Bool(data=False))
    arm.wait(lambda: arm.commander.figures().last_stop)
    stop = arm.commander.figures().last_stop
    assert stop is not None
    assert stop.reason is StopReason.robot_not_ready
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()
    node.destroy_publisher(latched)


def test_a_robot_that_said_that_it_is_ready_and_went_away_is_stopped_and_not_armed(
    node: Node,
) -> None:
    latched = node.create_publisher(Bool, "ready", qos.LATCHED)
    arm = Arm(node, ready_topic="ready")
    latched.publish(Bool(data=True))

    def is_armed() -> bool:
        with suppress(QvlaError):
            arm.commander.arm()
        return arm.commander.armed

    arm.wait(is_armed)
    arm.commander.poll()
    arm.move()
    node.destroy_publisher(latched)

    def has_stopped() -> Any:
        arm.commander.poll()
        return arm.commander.figures().last_stop

    arm.wait(has_stopped)
    figures = arm.commander.figures()
    assert figures.reason is StopReason.robot_not_ready
    assert "no publisher on /ready" in figures.detail
    arm.wait(lambda: not arm.commander.is_stopping())
    with pytest.raises(QvlaError, match="ready_topic"):
        arm.commander.arm()
    arm.commander.finish(StopReason.deactivated)
    arm.commander.destroy()
