"""Settings that limit nothing, or nothing sensible, are refused by the parameter's name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qvla_ros.control.settings import ControllerSettings
from qvla_ros.errors import QvlaError

SETTINGS = ControllerSettings(0.01, 0.5, 0.4, 0.1)
POSITIVE = [
    "max_image_age_s",
    "inference_timeout_s",
    "max_command_age_s",
    "max_clock_jump_s",
    "max_linear_lead",
    "max_angular_lead_rad",
]


@pytest.mark.parametrize("name", POSITIVE)
def test_a_limit_may_be_small_or_absent_but_not_zero(name: str) -> None:
    for value in (1e-6, math.inf):
        assert getattr(replace(SETTINGS, **{name: value}), name) == value
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(QvlaError, match=f"^parameter {name}: got {value}"):
            replace(SETTINGS, **{name: value})


@pytest.mark.parametrize("period_s", [0.0, -0.01, math.nan])
def test_a_period_that_is_none_is_refused_as_the_rate_that_users_set(period_s: float) -> None:
    with pytest.raises(QvlaError, match="^parameter control_hz"):
        replace(SETTINGS, period_s=period_s)


def test_no_deadman_is_zero_and_one_without_an_end_is_refused() -> None:
    assert replace(SETTINGS, deadman_timeout_s=0.0).deadman_timeout_s == 0.0
    assert replace(SETTINGS, deadman_timeout_s=0.5).deadman_timeout_s == 0.5
    for value in (-1e-6, math.inf, math.nan):
        with pytest.raises(QvlaError, match="^parameter deadman_timeout_s"):
            replace(SETTINGS, deadman_timeout_s=value)
