"""No burst of ticks becomes a burst of commands. Times are multiples of 1/64 s: exact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.control.pace import Pace

PERIOD_S = 0.25
UNIT_S = 1 / 64  # 16 to a period


def commands_at(ticks_s: list[float]) -> list[float]:
    pace = Pace(PERIOD_S)
    sent = []
    for tick_s in ticks_s:
        if pace.allows(tick_s):
            pace.note(tick_s)
            sent.append(tick_s)
    return sent


@given(st.integers(-1000, 1000), st.lists(st.integers(0, 40), max_size=60))
def test_commands_are_half_a_period_apart_and_one_a_period_plus_two(
    start: int, gaps: list[int]
) -> None:
    ticks_s = [start * UNIT_S]
    for gap in gaps:
        ticks_s.append(ticks_s[-1] + gap * UNIT_S)
    sent = commands_at(ticks_s)
    assert sent[0] == ticks_s[0]
    for first, begin_s in enumerate(sent):
        for last, end_s in enumerate(sent[first + 1 :], first + 1):
            assert end_s - begin_s >= 0.5 * PERIOD_S
            assert last - first + 1 <= (end_s - begin_s) / PERIOD_S + 2


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=60))
def test_ticks_that_come_about_once_a_period_all_command(jitter: list[int]) -> None:
    """Up to a quarter of a period early or late each."""
    ticks_s = [100.0 + index * PERIOD_S + late * UNIT_S for index, late in enumerate(jitter)]
    assert commands_at(ticks_s) == ticks_s


def test_the_command_after_a_late_one_may_come_half_a_period_later_and_no_sooner() -> None:
    late_s = 10.0 + 7 * UNIT_S
    sooner_s = late_s + 7 * UNIT_S
    half_s = late_s + 8 * UNIT_S
    ticks_s = [10.0 - PERIOD_S, late_s, sooner_s, half_s]
    assert commands_at(ticks_s) == [10.0 - PERIOD_S, late_s, half_s]


def test_a_long_stall_is_not_made_up_for() -> None:
    after = [100.0 + index * 2 * UNIT_S for index in range(33)]  # a burst: eight ticks a period
    sent = commands_at([0.0, *after])
    assert len(sent) - 1 <= 4 + 2  # in the four periods after the stall
