"""The model of joint_trajectory_controller interpolates, replaces and refuses as upstream does."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_ros.testing.trajectory_controller import TrajectoryController, TrajectoryMessage


def message(
    times_s: list[float],
    positions: list[float],
    velocities: list[float] | None = None,
    stamp_s: float = 0.0,
) -> TrajectoryMessage:
    return TrajectoryMessage(
        stamp_s,
        np.array(times_s),
        np.array(positions)[:, None],
        None if velocities is None else np.array(velocities)[:, None],
    )


def played(arm: TrajectoryController, begin_s: float, seconds: float) -> np.ndarray:
    updates = range(round(1000 * seconds))
    return np.array([arm.update(begin_s + 0.001 * each)[0] for each in updates])


def test_positions_alone_are_joined_by_lines() -> None:
    arm = TrajectoryController(np.zeros(1))
    arm.receive(message([0.1, 0.2], [0.1, 0.0]), 5.0)
    seen = played(arm, 5.0, 0.3)
    np.testing.assert_allclose(seen[:99], 0.001 * np.arange(1, 100))
    np.testing.assert_allclose(seen[99:199], 0.1 - 0.001 * np.arange(100), atol=1e-12)
    np.testing.assert_allclose(seen[200:], 0.0, atol=1e-12)


def test_points_with_velocities_are_joined_by_cubics() -> None:
    arm = TrajectoryController(np.zeros(1))
    arm.receive(message([0.1, 0.2], [0.05, 0.1], [1.0, 0.0]), 5.0)
    at_s = 0.001 * np.arange(1, 101)
    np.testing.assert_allclose(played(arm, 5.0, 0.1)[:99], 5.0 * at_s[:99] ** 2, atol=1e-12)
    np.testing.assert_allclose(
        played(arm, 5.1, 0.1), 0.05 + at_s - 0.001 - 5.0 * (at_s - 0.001) ** 2, atol=1e-3
    )


def test_a_stamp_in_the_past_is_entered_where_it_is_now() -> None:
    arm = TrajectoryController(np.zeros(1))
    arm.receive(message([0.0, 0.1, 0.2], [1.0, 2.0, 2.0], stamp_s=4.95), 5.0)
    assert arm.update(5.0)[0] == pytest.approx(1.51)


@pytest.mark.parametrize(("from_desired", "share"), [(False, 1 / 100), (True, 2 / 101)])
def test_a_new_message_replaces_the_old_one_from_the_last_command(
    from_desired: bool, share: float
) -> None:
    """From the last command's own time where the parameter says so: an update too early."""
    arm = TrajectoryController(np.zeros(1), from_desired=from_desired)
    arm.receive(message([0.1], [0.1]), 5.0)
    assert played(arm, 5.0, 0.05)[-1] == pytest.approx(0.05)
    arm.receive(message([0.1], [0.2]), 5.05)
    assert arm.update(5.05)[0] == pytest.approx(0.05 + share * 0.15)


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (message([0.1, 0.1], [0.1, 0.2]), "increasing"),
        (message([0.1], [0.1], [0.5]), "velocity is not zero"),
        (message([0.1], [0.1], stamp_s=4.8), "in the past"),
    ],
)
def test_what_upstream_refuses_is_refused(refused: TrajectoryMessage, reason: str) -> None:
    arm = TrajectoryController(np.zeros(1))
    arm.receive(refused, 5.0)
    assert reason in arm.rejected[0]
    assert arm.update(5.0)[0] == 0.0
