"""Limits are one number for all axes or one each, and must limit something."""

from __future__ import annotations

import numpy as np
import pytest

from qvla_ros.control.limits import motion_limits
from qvla_ros.errors import QvlaError


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_linear_step": [0.1, 0.2]}, "max_linear_step"),
        ({"max_linear_velocity": 0.0}, "max_linear_velocity"),
        ({"max_angular_step_rad": float("nan")}, "max_angular_step_rad"),
        ({"linear_low": 1.0, "linear_high": -1.0}, "linear_low"),
        ({"linear_low": 1.0, "linear_high": 1.0}, "linear_low"),
        ({"linear_low": float("nan")}, "linear_low"),
        ({"max_linear_acceleration": [0.1, 0.0, 0.1]}, "max_linear_acceleration"),
    ],
)
def test_limits_that_limit_nothing_sensible_are_refused(limits: dict, key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        motion_limits(3, **limits)


def test_a_limit_is_one_number_for_all_axes_or_one_each_or_none() -> None:
    limits = motion_limits(3, linear_low=-0.001, max_linear_step=[0.1, 0.2, 0.3])
    assert limits.linear_low.tolist() == [-0.001] * 3
    assert limits.linear_high.tolist() == [np.inf] * 3
    assert limits.max_linear_step.tolist() == [0.1, 0.2, 0.3]
    assert limits.max_linear_velocity.tolist() == [np.inf] * 3
    assert motion_limits(1, max_linear_step=0.5).max_linear_step.tolist() == [0.5]
    with pytest.raises(QvlaError, match="^parameter linear_low: .*3 numbers"):
        motion_limits(3, linear_low=[0.0, 0.0])
