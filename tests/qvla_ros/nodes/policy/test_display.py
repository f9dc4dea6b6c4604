"""The plan as RViz and Foxglove show it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.nodes.policy.display import path_message, predicted_setpoints, trajectory_message

UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])
DELTA = MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6)
S = 1_000_000_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 7), min_size=1, max_size=8))
def test_deltas_add_up_from_the_measured_pose(rows: list[tuple]) -> None:
    actions = np.array(rows)
    start = np.array([0.4, -0.1, 0.2])
    setpoints = predicted_setpoints(Setpoint(start, UPRIGHT, 1.0), actions, DELTA)
    expected = start + np.vstack([np.zeros(3), np.cumsum(0.05 * actions[:, :3], axis=0)])
    np.testing.assert_allclose([setpoint.linear for setpoint in setpoints], expected, atol=1e-12)
    lengths = [np.linalg.norm(setpoint.quaternion_xyzw) for setpoint in setpoints]
    np.testing.assert_allclose(lengths, 1.0, atol=1e-9)


def test_absolute_actions_are_shown_where_they_point() -> None:
    spec = MotionSpec("end_effector_pose", 1.0, 1.0, None)
    action = np.array([0.5, 0.1, 0.3, 0.0, 0.0, np.pi / 2])
    setpoints = predicted_setpoints(Setpoint(np.zeros(3), UPRIGHT), action[None], spec)
    np.testing.assert_allclose(setpoints[1].linear, action[:3])
    np.testing.assert_allclose(
        np.abs(setpoints[1].quaternion_xyzw @ [0, 0, np.sqrt(0.5), np.sqrt(0.5)]), 1.0
    )


def test_every_pose_is_stamped_with_its_time_and_framed() -> None:
    setpoints = [Setpoint(np.array([0.1, 0.2, 0.3]), UPRIGHT)] * 3
    path = path_message(setpoints, "base_link", 7 * S, 0.25)
    assert path.header.frame_id == "base_link"
    assert [(pose.header.stamp.sec, pose.header.stamp.nanosec) for pose in path.poses] == [
        (7, 0),
        (7, S // 4),
        (7, S // 2),
    ]
    assert {pose.header.frame_id for pose in path.poses} == {"base_link"}
    pose = path.poses[2].pose
    assert (pose.position.x, pose.position.y, pose.position.z, pose.orientation.w) == (
        0.1,
        0.2,
        0.3,
        1.0,
    )


def test_joints_are_shown_by_name_and_time_from_now() -> None:
    spec = MotionSpec("delta_joint_position", 1.0, 1.0, None)
    setpoints = predicted_setpoints(
        Setpoint(np.array([0.0, 1.0])), np.array([[0.5, 0.0], [0.5, -1.0]]), spec
    )
    message = trajectory_message(setpoints, ["shoulder", "elbow"], 0, 0.6)
    assert message.joint_names == ["shoulder", "elbow"]
    assert [list(point.positions) for point in message.points] == [
        [0.0, 1.0],
        [0.5, 1.0],
        [1.0, 0.0],
    ]
    times = [(point.time_from_start.sec, point.time_from_start.nanosec) for point in message.points]
    assert times == [(0, 0), (0, 600_000_000), (1, 200_000_000)]
