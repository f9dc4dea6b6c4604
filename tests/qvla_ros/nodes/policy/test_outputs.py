"""Commands are standard messages with what a robot's controller needs.

What does not fit together is refused early.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.course import Trajectory
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.policy.grippers.gripper import make_gripper
from qvla_ros.nodes.policy.outputs import joint_trajectory, pose, position_array, twist
from qvla_ros.nodes.policy.outputs.form import CommandForm, command_form
from qvla_ros.parameters.policy import CommandParameters
from qvla_ros.parameters.table import from_values

JOINTS = ["shoulder", "elbow"]
NOW_NS = 12_000_000_034
HALF_TURN_Z = np.array([0.0, 0.0, 1.0, 0.0])


def actions(kind: str, gripper: bool = True) -> ActionSpec:
    moving = ("x", "y", "z", "rx", "ry", "rz") if kind.endswith("pose") else ("a", "b")
    names = (*moving, "gripper") if gripper else moving
    units = ("rad",) * len(moving) + ("opening_fraction",) * gripper
    convention = "opening_fraction" if gripper else None
    return ActionSpec(
        names,
        kind,
        "base_link",
        units,
        len(moving) if gripper else None,
        convention,
        4,
        0.05,
        "q99",
    )


def parameters(**values: Any) -> CommandParameters:
    return from_values(CommandParameters, values)


def form_of(
    kind: ActionSpec, period_s: float = 0.01, stop_action: str = "auto", **values: Any
) -> CommandForm:
    return command_form(parameters(**values), stop_action, kind, period_s)


TRAJECTORY = Trajectory(
    np.array([-0.00999, 0.5, 2.25]),
    np.array([[0.5, -1.0], [0.6, -1.1], [0.7, -1.1]]),
    np.array([[0.2, 0.1], [0.3, 0.0], [0.0, 0.0]]),
)


@pytest.mark.parametrize("with_velocities", [True, False])
def test_a_trajectory_is_stamped_a_period_ago_and_has_times_from_there(
    with_velocities: bool,
) -> None:
    form = form_of(
        actions("joint_position"),
        output="joint_trajectory",
        joints=JOINTS,
        trajectory_velocities=with_velocities,
    )
    message = joint_trajectory.message(form, TRAJECTORY, NOW_NS)
    assert list(message.joint_names) == JOINTS
    assert stamp_ns(message.header.stamp) == NOW_NS - 10_000_000
    times = [(point.time_from_start.sec, point.time_from_start.nanosec) for point in message.points]
    assert times == [(0, 10_000), (0, 510_000_000), (2, 260_000_000)]
    for point, positions, velocities in zip(
        message.points, TRAJECTORY.positions, TRAJECTORY.velocities, strict=True
    ):
        assert list(point.positions) == positions.tolist()
        assert list(point.velocities) == (velocities.tolist() if with_velocities else [])
        assert not [*point.accelerations, *point.effort]


@pytest.mark.parametrize(
    ("period_s", "asked_s", "expected_s"),
    [(0.01, 0.0, 0.06), (0.02, 0.0, 0.07), (0.1, 0.0, 0.2), (0.01, 0.03, 0.03)],
)
def test_trajectories_are_sent_a_period_and_the_expected_latency_ahead(
    period_s: float, asked_s: float, expected_s: float
) -> None:
    form = form_of(
        actions("joint_position"),
        period_s,
        output="joint_trajectory",
        joints=JOINTS,
        look_ahead_s=asked_s,
    )
    assert form.look_ahead_s == pytest.approx(expected_s)


def test_what_is_no_trajectory_is_sent_when_it_is_due() -> None:
    form = form_of(
        actions("joint_position"), output="position_array", joints=JOINTS, look_ahead_s=0.1
    )
    assert form.look_ahead_s == 0.0


def test_a_position_array_is_the_setpoint() -> None:
    form = form_of(actions("delta_joint_position"), output="position_array", joints=JOINTS)
    assert list(position_array.message(form, _joint_motion([0.5, -1.0]), NOW_NS).data) == [
        0.5,
        -1.0,
    ]


def test_poses_and_twists_are_stamped_and_in_the_bundles_frame() -> None:
    motion = MotionState(
        Setpoint(np.array([1.0, 2.0, 3.0]), HALF_TURN_Z, 1.0),
        np.array([0.1, 0.2, 0.3]),
        np.array([0.4, 0.5, 0.6]),
    )
    kind = actions("delta_end_effector_pose")
    message = pose.message(form_of(kind, output="pose"), motion, NOW_NS)
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == (
        "base_link",
        12,
        34,
    )
    place = message.pose.position
    turn = message.pose.orientation
    assert (place.x, place.y, place.z) == (1.0, 2.0, 3.0)
    assert (turn.x, turn.y, turn.z, turn.w) == tuple(HALF_TURN_Z)
    form = form_of(kind, output="twist", command_frame="tool0")
    moving = twist.message(form, motion, NOW_NS)
    still = twist.message(form, at_rest(motion.setpoint), NOW_NS)
    assert (moving.header.frame_id, moving.header.stamp.sec) == ("tool0", 12)
    linear = moving.twist.linear
    angular = moving.twist.angular
    assert (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z) == (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
    )
    assert still.header.stamp.sec == 12
    assert still.twist == type(still.twist)()


@pytest.mark.parametrize(("output", "stop"), [("twist", "zero"), ("pose", "hold")])
def test_the_stop_action_is_chosen_by_what_the_output_can_express(output: str, stop: str) -> None:
    assert form_of(actions("delta_end_effector_pose"), output=output).stop_action == stop


@pytest.mark.parametrize(
    ("kind", "values", "key"),
    [
        ("joint_position", {"output": "pose"}, "parameter output"),
        ("end_effector_pose", {"output": "joint_trajectory", "joints": JOINTS}, "parameter output"),
        ("joint_position", {"output": "joint_trajectory"}, "parameter joints"),
        (
            "joint_position",
            {"output": "position_array", "joints": ["elbow", "elbow"]},
            "parameter joints",
        ),
        (
            "joint_position",
            {"output": "joint_trajectory", "joints": ["b", "a"]},
            "parameter joints: .* order",
        ),
        ("end_effector_pose", {"output": "pose", "stop_action": "zero"}, "parameter stop_action"),
        (
            "delta_end_effector_pose",
            {"output": "twist", "stop_action": "hold"},
            "parameter stop_action",
        ),
        ("end_effector_pose", {"output": "twist"}, "parameter output: got twist; expected pose"),
        (
            "joint_position",
            {"output": "joint_trajectory", "joints": JOINTS, "look_ahead_s": 0.015},
            r"parameter look_ahead_s: got 0\.015; expected 0, or two periods",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(kind: str, values: dict[str, Any], key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        form_of(actions(kind), **values)


@pytest.fixture
def node(ros_environment: dict[str, str]) -> Iterator[Node]:
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    node = rclpy.create_node("x")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_a_gripper_is_told_its_own_units_at_every_command(node: Node) -> None:
    given = parameters(
        gripper_output="position", gripper_topic="fingers", gripper_min=0.8, gripper_max=0.0
    )
    gripper = make_gripper(node, given, actions("joint_position"))
    heard: list[float] = []
    node.create_subscription(
        Float64MultiArray, "fingers", lambda message: heard.extend(message.data), 10
    )
    while node.count_subscribers("fingers") < 1:
        rclpy.spin_once(node, timeout_sec=0.05)
    assert gripper is not None
    for opening in (0.0, 0.25, 1.0):
        count = len(heard)
        while len(heard) == count:
            gripper.send(opening)
            rclpy.spin_once(node, timeout_sec=0.05)
    assert [
        value for i, value in enumerate(heard) if i == 0 or value != heard[i - 1]
    ] == pytest.approx([0.8, 0.6, 0.0])
    gripper.destroy()


def test_a_gripper_that_the_bundle_or_the_machine_lacks_is_refused(node: Node) -> None:
    same = parameters(gripper_output="position", gripper_min=0.5, gripper_max=0.5)
    with pytest.raises(QvlaError, match=r"gripper_min and gripper_max: got both 0\.5"):
        make_gripper(node, same, actions("joint_position"))
    with pytest.raises(QvlaError, match="gripper_output: got position.*no gripper"):
        make_gripper(
            node, parameters(gripper_output="position"), actions("joint_position", gripper=False)
        )
    assert make_gripper(node, parameters(), actions("joint_position")) is None


def test_a_missing_action_definition_is_named_with_its_package(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "control_msgs.action", None)
    with pytest.raises(QvlaError, match="control_msgs with the action ParallelGripperCommand"):
        make_gripper(
            node, parameters(gripper_output="parallel_gripper_command"), actions("joint_position")
        )


def _joint_motion(positions: list[float]) -> MotionState:
    return MotionState(Setpoint(np.array(positions), None, 1.0), np.zeros(2), np.zeros(3))


class Client:
    """Stands in for an action client of control_msgs, which comes with a ROS install only."""

    def __init__(self) -> None:
        self.ready = True
        self.accepts = True
        self.positions: list[float] = []

    def server_is_ready(self) -> bool:
        return self.ready

    def send_goal_async(self, goal: Any) -> Any:
        self.positions += goal.command.position
        answer = SimpleNamespace(result=lambda: SimpleNamespace(accepted=self.accepts))
        return SimpleNamespace(add_done_callback=lambda callback: callback(answer))


@pytest.fixture
def action_gripper(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Client, list[str]]:
    """A gripper by action, 0 to 0.04 m, its client and the warnings it gave."""
    from qvla_ros.nodes.policy.grippers import parallel_gripper_command as gripper

    client = Client()
    warnings = []
    goal = lambda: SimpleNamespace(command=SimpleNamespace())  # noqa: E731
    monkeypatch.setattr(gripper, "_parallel_gripper_command", lambda: SimpleNamespace(Goal=goal))
    monkeypatch.setattr(gripper, "ActionClient", lambda *_: client)
    monkeypatch.setattr(gripper, "RETRY_S", 0.0)
    logger = SimpleNamespace(warning=lambda text, **_: warnings.append(text))
    node = SimpleNamespace(get_logger=lambda: logger)
    return gripper.ActionGripper(node, "/hand", "finger", 0.0, 0.04), client, warnings


def test_a_gripper_goal_is_sent_once_per_change(action_gripper: Any) -> None:
    gripper, client, warnings = action_gripper
    for opening in (1.0, 1.0, 0.98, 0.0, 0.0, 1.0):
        gripper.send(opening)
    assert client.positions == [0.04, 0.0, 0.04]
    assert warnings == []


def test_a_gripper_that_is_not_there_is_told_and_gets_its_goal_when_it_comes(
    action_gripper: Any,
) -> None:
    gripper, client, warnings = action_gripper
    client.ready = False
    gripper.send(0.0)
    assert client.positions == []
    assert "/hand is not there" in warnings[0]
    client.ready = True
    gripper.send(0.0)
    assert client.positions == [0.0]


def test_a_refused_gripper_goal_is_told_and_sent_again(action_gripper: Any) -> None:
    gripper, client, warnings = action_gripper
    client.accepts = False
    gripper.send(0.5)
    assert "refused" in warnings[0]
    client.accepts = True
    gripper.send(0.5)
    gripper.send(0.5)
    assert client.positions == [0.02, 0.02]
