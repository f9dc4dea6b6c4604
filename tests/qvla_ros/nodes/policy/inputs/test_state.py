"""Joints, pose and gripper: what is measured of them, in which order, and what cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import Measured, joint_positions, measured_by
from qvla_ros.parameters.policy import CommandParameters
from qvla_ros.parameters.table import from_values
from qvla_ros.simulation.specification import FINGER_NAMES, JOINT_NAMES

FINGERS = {FINGER_NAMES[0]: 0.02, FINGER_NAMES[1]: -0.02}


def test_the_measured_pose_and_gripper_are_the_newest_ones_and_as_old_as_the_oldest(
    bench: Callable, bundle: Bundle
) -> None:
    measured = Measured(gripper_joint=FINGER_NAMES[0], gripper_min=0.0, gripper_max=0.04)
    rig = bench(measured=measured)
    assert rig.inputs.measured() is None
    rig.send_state(rig.fingers(0.01), x=0.25)
    setpoint, stamp = rig.wait(rig.inputs.measured, "a measurement")
    np.testing.assert_allclose(setpoint.linear, [0.25, 0, 0])
    np.testing.assert_allclose(setpoint.quaternion_xyzw, [0, 0, 0, 1])
    assert setpoint.gripper == pytest.approx(0.25)
    assert stamp == rig.stamp_ns
    first_ns = rig.stamp_ns
    state = JointState(name=list(FINGER_NAMES), position=[0.03, -0.03])
    rig.publish(JointState, "/x/joint_states", rig.stamped(state, 5_000_000))
    rig.wait(lambda: rig.inputs.measured()[0].gripper > 0.5, "the newer gripper")
    assert rig.inputs.measured()[1] == first_ns  # the pose has not moved on


def test_an_output_of_joint_positions_measures_them_in_its_own_order_though_the_policy_reads_none(
    bench: Callable, bundle: Bundle
) -> None:
    blind = replace(bundle, proprioception=None)
    names = JOINT_NAMES[::-1]
    rig = bench(measured=Measured(names), of=blind)
    positions = {name: 0.1 * index for index, name in enumerate(JOINT_NAMES)}
    observation = rig.observe(lambda: rig.send_images(blind), lambda: rig.publish_joints(positions))
    assert observation.proprioception.size == 0
    setpoint, _ = rig.wait(rig.inputs.measured, "a measurement")
    np.testing.assert_allclose(setpoint.linear, [positions[name] for name in names])
    assert setpoint.quaternion_xyzw is None
    assert setpoint.gripper is None


@pytest.mark.parametrize(
    ("joints", "options", "words"),
    [
        (
            {**FINGERS, FINGER_NAMES[0]: float("nan")},
            {},
            ("joints on /x/joint_states", "nan", "finite"),
        ),
        (FINGERS, {"x": float("inf")}, ("pose on /x/ee_pose", "inf", "finite numbers")),
        (FINGERS, {"w": 0.0}, ("pose on /x/ee_pose", "quaternion of length 1")),
    ],
)
def test_a_state_that_cannot_be_used_takes_the_measurement_away_until_it_is_mended(
    bench: Callable, joints: dict[str, float], options: dict, words: tuple[str, ...]
) -> None:
    rig = bench(measured=Measured(gripper_joint=FINGER_NAMES[0]))
    rig.send_state(rig.fingers())
    rig.wait(rig.inputs.measured, "a measurement")
    rig.send_state(joints, **options)
    rig.wait(lambda: all(word in rig.inputs.poll() for word in words), f"a reason with {words}")
    assert rig.inputs.measured() is None
    rig.send_state(rig.fingers())
    rig.wait(rig.inputs.measured, "a measurement again")


def test_messages_of_parts_of_the_robot_are_merged_while_each_is_heard_of(
    bench: Callable,
) -> None:
    rig = bench(measured=Measured(gripper_joint=FINGER_NAMES[0]))
    part = {FINGER_NAMES[0]: 0.0}
    rig.send_state(part)
    words = (f"also {FINGER_NAMES[1]}", "source_list")
    rig.wait(lambda: all(word in rig.inputs.poll() for word in words), f"a reason with {words}")
    rig.send_state(rig.fingers())
    rig.wait(rig.inputs.measured, "a measurement")
    rig.publish_joints({"wheel": 7.0})
    rig.publish_joints({FINGER_NAMES[0]: 0.75})
    rig.wait(lambda: rig.inputs.measured()[0].gripper == 0.75, "the finger that moved")
    rig.stamp_ns += 300_000_000
    rig.publish_joints(part)
    silent = f"got {FINGER_NAMES[1]} 0.300 s ago"
    rig.wait(lambda: silent in rig.inputs.poll(), "the finger that is silent")
    assert rig.inputs.measured() is None


def test_joints_of_an_arm_whose_driver_died_look_no_newer_by_messages_of_its_gripper(
    bench: Callable, bundle: Bundle
) -> None:
    names = JOINT_NAMES[:2]
    measured = Measured(names, gripper_joint=FINGER_NAMES[0])
    rig = bench(measured=measured, of=replace(bundle, proprioception=None))
    rig.publish_joints({**dict.fromkeys(names, 0.5), FINGER_NAMES[0]: 0.0})
    _, arm_ns = rig.wait(rig.inputs.measured, "a measurement")
    rig.stamp_ns += 50_000_000
    rig.publish_joints({FINGER_NAMES[0]: 0.75})
    rig.wait(lambda: rig.inputs.measured()[0].gripper == 0.75, "the finger that moved")
    assert rig.inputs.measured()[1] == arm_ns
    rig.stamp_ns += 50_000_000
    rig.publish_joints(dict.fromkeys(names, 0.6))
    rig.wait(lambda: rig.inputs.measured()[1] == rig.stamp_ns, "the arm that moved")


def test_without_an_output_nothing_is_measured_and_nothing_else_subscribed_to(
    bench: Callable, bundle: Bundle
) -> None:
    rig = bench(of=replace(bundle, proprioception=None))
    assert rig.inputs.measured() is None
    assert {stream.topic for stream in rig.inputs.streams()} == {
        f"/x/camera/{camera.name}/image_raw" for camera in bundle.cameras
    }


def test_what_is_measured_comes_from_the_parameters_and_the_kind_of_actions(
    bundle: Bundle,
) -> None:
    assert measured_by(CommandParameters(), bundle) is None
    values = {
        "output": "twist",
        "joints": ["a", "b"],
        "gripper_joint": "f",
        "gripper_max": 0.04,
    }
    twist = from_values(CommandParameters, values)
    assert measured_by(twist, bundle) == Measured((), "f", 0.0, 0.04)
    joint_bundle = replace(bundle, actions=replace(bundle.actions, kind="joint_position"))
    assert measured_by(twist, joint_bundle) == Measured(("a", "b"), "f", 0.0, 0.04)


def test_a_gripper_that_is_as_open_as_it_is_closed_is_refused(bundle: Bundle) -> None:
    parameters = CommandParameters(output="twist", gripper_joint="f", gripper_min=1.0)
    with pytest.raises(QvlaError, match="gripper_min and gripper_max: got both 1"):
        measured_by(parameters, bundle)


def test_a_joint_that_is_there_twice_is_refused_if_it_is_needed() -> None:
    message = JointState(
        name=["elbow", "wheel", "elbow", "wheel", "wrist"], position=[0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert joint_positions(message, "/joint_states", ["wrist"])["wrist"] == 0.5
    with pytest.raises(QvlaError, match="joints on /joint_states: got elbow more than once"):
        joint_positions(message, "/joint_states", ["wrist", "elbow"])
