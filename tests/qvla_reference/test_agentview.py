"""The place of an object in the agentview agrees with the simulator's own camera.

The shares of its patches sum to a whole.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_reference.agentview import camera_of, patch_shares, picture_coordinates
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoTask


@pytest.mark.parametrize(("suite", "ground_m"), [("libero_object", 0.0), ("libero_spatial", 0.9)])
def test_points_lie_where_the_simulators_camera_sees_them(suite: str, ground_m: float) -> None:
    points_m = np.array([[0.0, 0.0, 0.0], [-0.1, 0.2, 0.03], [0.1, -0.25, 0.1]]) + [
        0.0,
        0.0,
        ground_m,
    ]
    with LiberoTask(suite, 0) as task:
        task.reset(0)
        sim = task.environment.sim
        camera = sim.model.camera_name2id("agentview")
        # right, up, backwards
        position_m, axes = (
            sim.data.cam_xpos[camera],
            sim.data.cam_xmat[camera].reshape(3, 3),
        )
        half_height = np.tan(np.radians(sim.model.cam_fovy[camera]) / 2)
    right, up, backwards = ((points_m - position_m) @ axes).T
    upright = 0.5 + 0.5 * np.stack([right, -up], axis=-1) / -backwards[:, None] / half_height
    found = picture_coordinates(points_m, camera_of(suite), crop_area=1.0)
    np.testing.assert_allclose(found, upright * [-1, 1] + [1, 0], atol=1e-4)


def test_a_crop_enlarges_about_the_centre() -> None:
    points_m = np.array([[0.1, 0.1, 0.9]])
    whole, cropped = (
        picture_coordinates(points_m, camera_of("libero_spatial"), area) for area in (1.0, 0.81)
    )
    np.testing.assert_allclose((cropped - 0.5) * 0.9, whole - 0.5)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 9))
def test_shares_are_whole_and_balance_at_the_point(column: float, row: float, side: int) -> None:
    shares = patch_shares(np.array([[column, row]]), side).reshape(side, side)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    centres = (np.arange(side) + 0.5) / side
    balance = np.array([shares.sum(axis=0) @ centres, shares.sum(axis=1) @ centres])
    np.testing.assert_allclose(balance, np.clip([column, row], centres[0], centres[-1]), atol=1e-5)


def test_a_suite_with_an_unknown_camera_is_refused() -> None:
    with pytest.raises(QvlaError, match="libero_goal"):
        camera_of("libero_goal")
