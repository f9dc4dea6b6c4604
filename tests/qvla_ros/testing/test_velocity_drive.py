"""An arm that is sent velocities stays in the box however late it is, and is stopped where it does
not follow.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.testing.velocity_drive import LateArm, Limits, drive

DOWN = np.array([0.0, 0.0, -1.0])
CORNER = np.array([0.6, 0.5, -0.6])
LATE_S = (0.0, 0.03, 0.1)


@pytest.mark.parametrize(("delay_s", "lag_s"), list(itertools.product(LATE_S, LATE_S)))
def test_the_box_holds_and_nothing_hunts(delay_s: float, lag_s: float) -> None:
    driven = drive(LateArm(delay_s, lag_s), Limits(), 4.0, DOWN)
    assert driven.stop is None
    assert driven.beyond_m <= 0.002
    assert driven.beyond_m >= -0.002  # it did come to the wall
    assert driven.swing_m(1.0) <= 0.002


@pytest.mark.parametrize("max_acceleration", [0.5, 4.0])
def test_the_box_holds_in_its_corner_with_other_limits(max_acceleration: float) -> None:
    limits = Limits(max_velocity=0.5, max_acceleration=max_acceleration)
    driven = drive(LateArm(0.1, 0.1), limits, 6.0, CORNER)
    assert driven.beyond_m <= 0.002
    assert driven.swing_m(1.0) <= 0.002


def test_an_arm_twice_as_late_as_told_goes_beyond_the_wall_once_and_does_not_hunt() -> None:
    driven = drive(LateArm(0.1, 0.1), Limits(reaction_time_s=0.1), 6.0, DOWN)
    assert 0.005 < driven.beyond_m < 0.25 * 0.1
    assert driven.swing_m(1.0) <= 0.002


def test_an_arm_half_as_late_as_told_only_comes_more_slowly() -> None:
    driven = drive(LateArm(0.05, 0.05), Limits(), 4.0, DOWN)
    prompt = drive(LateArm(0.05, 0.05), Limits(reaction_time_s=0.1), 4.0, DOWN)
    assert driven.beyond_m <= 0.002
    near = [np.argmax(each.positions[:, 2] < 0.03) for each in (driven, prompt)]
    assert near[0] > near[1] > 0


def test_an_arm_taken_to_be_at_once_hunts_at_the_wall_if_it_is_not() -> None:
    """So the model can tell good from bad."""
    driven = drive(LateArm(0.05, 0.05), Limits(reaction_time_s=0.0), 6.0, DOWN)
    assert driven.beyond_m > 0.01
    assert driven.swing_m(2.0) > 0.02


@pytest.mark.parametrize("speed", [(0.25, 1.0), (0.05, 0.25)])
@pytest.mark.parametrize("gain", [0.0, -1.0, 3.0])
def test_an_arm_that_stands_still_or_goes_another_way_is_stopped(
    gain: float, speed: tuple[float, float]
) -> None:
    driven = drive(LateArm(0.05, 0.05, gain), Limits(*speed), 2.0, DOWN)
    assert driven.stop is StopReason.not_following
    assert driven.stopped_s < 1.0


@pytest.mark.parametrize(("delay_s", "lag_s"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.1)])
@pytest.mark.parametrize("reaction_time_s", [0.05, 0.2])
def test_an_arm_that_follows_is_not_stopped_whatever_it_is_told(
    delay_s: float, lag_s: float, reaction_time_s: float
) -> None:
    limits = Limits(reaction_time_s=reaction_time_s)
    driven = drive(LateArm(delay_s, lag_s), limits, 4.0, np.random.default_rng(5))
    assert driven.stop is None
    assert np.ptp(driven.positions, axis=0).max() > 0.05
