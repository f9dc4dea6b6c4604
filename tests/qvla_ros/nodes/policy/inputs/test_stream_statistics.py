"""Rates are counted over the last seconds, ages are those of the newest stamp."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.nodes.policy.inputs.stream_statistics import WINDOW_S, StreamStatistics

SECOND = 10**9


def _camera(statistics: StreamStatistics, now_ns: int, steady_s: float) -> tuple[float, float]:
    (camera,) = statistics.health(now_ns, steady_s)
    return camera.rate_hz, camera.age_s


def test_a_stream_that_never_came_has_no_rate_and_no_age() -> None:
    assert _camera(StreamStatistics(["camera"], 0.0), 5 * SECOND, 5.0) == (0.0, math.inf)


@given(rate_hz=st.integers(1, 1000), seconds=st.integers(3, 6))
def test_the_rate_of_a_steady_stream_is_told_to_one_message(rate_hz: int, seconds: int) -> None:
    statistics = StreamStatistics(["camera"], 0.0)
    for index in range(rate_hz * seconds):
        statistics.note("camera", index, index / rate_hz)
    rate, _ = _camera(statistics, 0, (rate_hz * seconds - 1) / rate_hz)
    assert rate == pytest.approx(rate_hz, abs=1 / WINDOW_S + 1e-9)


def test_the_rate_falls_to_zero_when_a_stream_stops() -> None:
    statistics = StreamStatistics(["camera"], 0.0)
    for index in range(40):
        statistics.note("camera", 0, index * 0.1)
    assert _camera(statistics, 0, 3.9 + WINDOW_S / 2)[0] == pytest.approx(5.0)
    assert _camera(statistics, 0, 3.9 + WINDOW_S)[0] == 0.0


def test_a_stream_that_has_just_begun_is_not_called_slow() -> None:
    statistics = StreamStatistics(["camera"], 10.0)
    for index in range(1, 6):
        statistics.note("camera", 0, 10.0 + index * 0.1)
    assert _camera(statistics, 0, 10.5)[0] == pytest.approx(10.0)


def test_the_age_is_that_of_the_newest_stamp_by_the_clock_of_the_stamps() -> None:
    statistics = StreamStatistics(["camera"], 0.0)
    statistics.note("camera", 3 * SECOND, 100.0)
    assert _camera(statistics, 3 * SECOND + SECOND // 4, 100.0)[1] == pytest.approx(0.25)
