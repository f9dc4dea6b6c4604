"""Joints keep their limits at 1 kHz whatever delays the node, and brake when it dies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qvla_ros.testing.trajectory_drive import Joints, Load, drive

JOINTS = Joints(count=3)


@pytest.mark.parametrize("from_desired", [False, True])
def test_on_a_loaded_machine_the_joints_are_asked_for_no_more_than_the_limits(
    from_desired: bool,
) -> None:
    driven = drive(JOINTS, Load(), 6.0, from_desired=from_desired)
    assert np.percentile(driven.gaps_s, 99) > 0.03
    assert driven.rejected == []
    assert np.percentile(np.abs(driven.accelerations), 99) <= 1.2 * JOINTS.max_acceleration
    assert np.abs(driven.velocities).max() <= JOINTS.max_velocity * (1.0 + 1e-6)
    assert np.ptp(driven.positions, axis=0).min() > 0.3  # they did move


def test_when_the_node_is_killed_the_joints_brake_to_rest() -> None:
    driven = drive(JOINTS, Load(), 4.0, dies_s=3.0)
    after = slice(3000, None)
    assert np.abs(driven.velocities[after][0]).max() > 0.2
    assert np.abs(driven.accelerations[after]).max() <= 2.0 * JOINTS.max_acceleration
    np.testing.assert_allclose(driven.velocities[-1], 0.0, atol=1e-9)


def test_single_points_without_velocity_ask_for_many_times_the_limit() -> None:
    """So the model can tell good from bad."""
    driven = drive(replace(JOINTS, single_points=True), Load(), 2.0)
    assert np.percentile(np.abs(driven.accelerations), 99) > 50.0 * JOINTS.max_acceleration


def test_positions_alone_stay_near_the_limits() -> None:
    """Their velocity changes in steps, once a period."""
    driven = drive(replace(JOINTS, with_velocities=False), Load(), 2.0)
    step = JOINTS.max_acceleration * JOINTS.period_s / 0.001
    assert np.percentile(np.abs(driven.accelerations), 99) <= 1.2 * step
