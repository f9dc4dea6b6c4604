"""Joints of several drivers on one topic make one state, as long as each of them is heard of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.messages.joint_merge import JointMerge

MS = 1_000_000
TOPIC = "/joint_states"


def message(**positions: float) -> Any:
    return SimpleNamespace(name=list(positions), position=list(positions.values()))


def merge() -> JointMerge:
    """Of an arm of two joints and a finger, after one message of each driver."""
    merge = JointMerge(["shoulder", "elbow", "finger"])
    with pytest.raises(QvlaError, match="also finger"):
        merge.add(message(shoulder=0.1, elbow=0.2), TOPIC, 0)
    merge.add(message(finger=0.04), TOPIC, 10 * MS)
    return merge


def test_a_message_of_all_joints_is_taken_as_it_is() -> None:
    both = JointMerge(["shoulder", "finger"])
    found = both.add(message(shoulder=0.1, finger=0.02, wheel=7.0), TOPIC, 0)
    assert found == {"shoulder": 0.1, "finger": 0.02, "wheel": 7.0}


def test_what_a_message_lacks_comes_from_the_one_before() -> None:
    found = merge().add(message(elbow=0.3, shoulder=0.4), TOPIC, 20 * MS)
    assert found == {"shoulder": 0.4, "elbow": 0.3, "finger": 0.04}
    found = merge().add(message(finger=0.01), TOPIC, 20 * MS)
    assert found == {"shoulder": 0.1, "elbow": 0.2, "finger": 0.01}


@pytest.mark.parametrize(("stamp_ms", "used"), [(260, True), (261, False)])
def test_a_joint_that_nobody_reports_any_more_is_named(stamp_ms: int, used: bool) -> None:
    if used:
        merge().add(message(elbow=0.3, shoulder=0.4), TOPIC, stamp_ms * MS)
        return
    with pytest.raises(QvlaError, match="got finger 0.251 s ago; expected it within 0.25 s"):
        merge().add(message(elbow=0.3, shoulder=0.4), TOPIC, stamp_ms * MS)


def test_a_message_of_another_robot_says_nothing_of_this_one() -> None:
    assert merge().is_foreign(message(wheel=1.0))
    assert not merge().is_foreign(message(wheel=1.0, finger=0.0))
    assert not JointMerge(["finger"]).is_foreign(message(wheel=1.0))  # it is named as the fault


def test_numbers_that_are_not_finite_are_refused_in_a_part_too() -> None:
    with pytest.raises(QvlaError, match="'elbow': nan"):
        merge().add(message(elbow=float("nan"), shoulder=0.4), TOPIC, 20 * MS)


def test_a_message_of_the_gripper_makes_the_arm_no_newer() -> None:
    arm = JointMerge(["shoulder", "elbow", "finger"], ["shoulder", "elbow"])
    arm.add(message(shoulder=0.1, elbow=0.2, finger=0.04), TOPIC, 0)
    assert arm.add(message(finger=0.01), TOPIC, 100 * MS)["finger"] == 0.01
    assert arm.stamp_ns == 0
    arm.add(message(shoulder=0.3), TOPIC, 120 * MS)
    assert arm.stamp_ns == 0  # the elbow is as old as that
    arm.add(message(elbow=0.3), TOPIC, 130 * MS)
    assert arm.stamp_ns == 120 * MS


def test_the_gripper_may_be_older_than_the_arm_by_no_more_than_the_window() -> None:
    arm = JointMerge(["shoulder", "finger"], ["shoulder"], window_s=0.1)
    arm.add(message(shoulder=0.1, finger=0.04), TOPIC, 0)
    arm.add(message(shoulder=0.2), TOPIC, 100 * MS)
    assert arm.stamp_ns == 100 * MS
    with pytest.raises(QvlaError, match="finger 0.101 s ago; expected it within 0.1 s"):
        arm.add(message(shoulder=0.3), TOPIC, 101 * MS)
