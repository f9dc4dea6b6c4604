"""The braking speed leaves just the room that coming to rest takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control.braking import braking_speed


@given(st.floats(1e-6, 10.0), st.floats(1e-4, 10.0), st.sampled_from([0.001, 0.01, 0.1]))
def test_braking_from_the_braking_speed_ends_at_the_wall(
    distance: float, change: float, dt_s: float
) -> None:
    speed = float(braking_speed(np.array(distance), change, dt_s))
    travelled = 0.0
    while speed > 0.0 and travelled <= distance * 1.01:
        travelled += speed * dt_s
        speed -= change
    assert travelled == pytest.approx(distance, rel=1e-9)
