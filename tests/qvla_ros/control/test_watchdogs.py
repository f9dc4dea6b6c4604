"""When the limit behind a stop was passed, and which of several limits gives the reason."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qvla_ros.control.setpoint import Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.watchdogs import (
    WATCHDOGS,
    Clocks,
    Deadman,
    Passed,
    Tick,
    clock_jump,
    first_passed,
)

S = 10**9
SETTINGS = ControllerSettings(
    0.25,
    max_image_age_s=2.0,
    inference_timeout_s=1.0,
    max_command_age_s=0.5,
    deadman_timeout_s=0.75,
    max_clock_jump_s=0.5,
    max_linear_lead=0.25,
    max_idle_s=1.0,
)
AT = Setpoint(np.array([0.5, 0.0, 0.0]))
WELL = Tick(
    now=Clocks(100 * S, 40.0),
    before=Clocks(100 * S - S // 4, 39.75),
    command=AT,
    measured=AT,
    unmeasured_s=0.0,
    input_ns=100 * S,
    deadman=Deadman(True, 40.0),
    inference_busy_s=0.0,
    plan_end_ns=101 * S,
)
SINCE_THE_TICK_BEFORE = math.nextafter(39.75, math.inf)

# what is passed, and when: seconds of the steady clock
CASES = [
    ({"now": Clocks(103 * S, 40.0)}, StopReason.clock_jump, SINCE_THE_TICK_BEFORE),
    ({"before": Clocks(99 * S, 39.0)}, StopReason.stalled, 39.75),
    ({"heard_s": 39.0}, StopReason.stalled, 39.75),
    ({"deadman": Deadman(True, 39.125)}, StopReason.deadman_lost, 39.875),
    ({"deadman": Deadman(False, 39.875)}, StopReason.deadman_lost, 39.875),
    (
        {"measured": Setpoint(np.full(3, math.nan))},
        StopReason.bad_measurement,
        SINCE_THE_TICK_BEFORE,
    ),
    ({"measured": Setpoint(np.zeros(3))}, StopReason.tracking_error, SINCE_THE_TICK_BEFORE),
    ({"input_ns": 97 * S}, StopReason.stale_input, 39.0),
    ({"input_ns": 103 * S}, StopReason.stale_input, 40.0),  # no later than it is noticed
    ({"input_ns": None}, StopReason.stale_input, SINCE_THE_TICK_BEFORE),
    (
        {"measured": None, "unmeasured_s": 2.125},
        StopReason.bad_measurement,
        SINCE_THE_TICK_BEFORE,
    ),
    ({"plan_end_ns": None, "armed_s": 38.5}, StopReason.unused, 39.5),
    ({"inference_busy_s": 1.125}, StopReason.late_inference, 39.875),
    ({"plan_end_ns": 99 * S}, StopReason.plan_exhausted, 39.5),
]


@pytest.mark.parametrize(("changes", "reason", "passed_s"), CASES)
def test_each_limit_gives_its_reason_and_when_it_was_passed(
    changes: dict[str, Any], reason: StopReason, passed_s: float
) -> None:
    assert first_passed(SETTINGS, replace(WELL, **changes)) == Passed(reason, passed_s)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"before": None, "now": Clocks(103 * S, 40.0), "input_ns": 103 * S, "plan_end_ns": None},
        {"deadman": Deadman(True, 39.25)},
        {"before": Clocks(100 * S - 3 * S // 4, 39.25)},
        {"heard_s": 39.25},
        {"input_ns": 98 * S},
        {"input_ns": 102 * S},
        {"measured": None, "unmeasured_s": 2.0},
        {"measured": Setpoint(np.array([0.25, 0.0, 0.0]))},
        {"inference_busy_s": 1.0},
        {"plan_end_ns": None, "armed_s": 39.0},
        {"plan_end_ns": 101 * S, "armed_s": 0.0},
        {"plan_end_ns": 100 * S - S // 2},
    ],
)
def test_exactly_at_a_limit_nothing_is_passed(changes: dict[str, Any]) -> None:
    assert first_passed(SETTINGS, replace(WELL, **changes)) is None


def turned(angle_rad: float) -> Setpoint:
    """AT, turned about z."""
    quaternion = np.array([0.0, 0.0, math.sin(angle_rad / 2), math.cos(angle_rad / 2)])
    return replace(AT, quaternion_xyzw=quaternion)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_turn_that_is_not_followed_is_a_tracking_error_too(sign: float) -> None:
    settings = replace(SETTINGS, max_angular_lead_rad=0.5)
    for lead_rad, passed in ((0.499, False), (0.501, True), (3.0, True)):
        tick = replace(WELL, command=turned(1.0 + sign * lead_rad), measured=turned(1.0))
        found = first_passed(settings, tick)
        expected = Passed(StopReason.tracking_error, SINCE_THE_TICK_BEFORE)
        assert found == (expected if passed else None)
    only_axes = replace(WELL, command=turned(3.0), measured=AT)
    assert first_passed(settings, only_axes) is None  # nothing is known of its orientation
    opposite = replace(turned(1.0), quaternion_xyzw=-turned(1.0).quaternion_xyzw)
    same = replace(WELL, command=turned(1.0), measured=opposite)
    assert first_passed(settings, same) is None  # q and -q are one orientation


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_ns": 98 * S - 1000}, StopReason.stale_input),
        ({"input_ns": 102 * S + 1000}, StopReason.stale_input),
        ({"measured": None, "unmeasured_s": 2.000001}, StopReason.bad_measurement),
        ({"inference_busy_s": 1.000001}, StopReason.late_inference),
        ({"plan_end_ns": 100 * S - S // 2 - 1000}, StopReason.plan_exhausted),
    ],
)
def test_a_microsecond_beyond_a_limit_it_is_passed(
    changes: dict[str, Any], reason: StopReason
) -> None:
    found = first_passed(SETTINGS, replace(WELL, **changes))
    assert found is not None
    assert found.reason is reason


@pytest.mark.parametrize(
    ("sim_time", "ros_ns", "steady_s", "jumped"),
    [
        (False, S // 4 + S // 2, 0.25, False),  # half a second apart
        (False, S // 4 + S // 2 + 1000, 0.25, True),
        (False, S // 4 - S // 2, 0.25, False),
        (False, S // 4 - S // 2 - 1000, 0.25, True),
        (False, 10 * S, 10.0, False),  # both stood still: a stall is no jump
        (True, S // 2, 0.0, False),
        (True, S // 2 + 1000, 0.5, True),
        (True, 0, 10.0, False),
        (True, -1, 0.0, True),
    ],
)
def test_clocks_part_by_what_ros_time_moved_beyond_the_machines(
    sim_time: bool, ros_ns: int, steady_s: float, jumped: bool
) -> None:
    before = Clocks(100 * S, 40.0)
    tick = replace(WELL, before=before, now=Clocks(100 * S + ros_ns, 40.0 + steady_s))
    settings = replace(SETTINGS, use_sim_time=sim_time)
    assert (clock_jump(settings, tick) is not None) is jumped


def test_without_a_deadman_nobody_has_to_hold_one() -> None:
    tick = replace(WELL, deadman=Deadman())
    assert first_passed(replace(SETTINGS, deadman_timeout_s=0.0), tick) is None


def test_a_stall_in_which_the_deadman_was_not_heard_is_called_a_stall() -> None:
    asleep = replace(WELL, before=Clocks(98 * S, 38.0), deadman=Deadman(True, 38.0))
    for settings in (SETTINGS, replace(SETTINGS, max_stall_s=0.5)):
        found = first_passed(settings, asleep)
        assert found is not None
        assert found.reason is StopReason.stalled
    alone = replace(SETTINGS, deadman_timeout_s=0.0)
    assert first_passed(alone, replace(asleep, input_ns=100 * S)) is None
    assert first_passed(replace(alone, max_stall_s=1.5), asleep) == (StopReason.stalled, 39.5)


def test_of_several_limits_the_first_of_the_table_gives_the_reason() -> None:
    at_once = {key: value for changes, _, _ in CASES for key, value in changes.items()}
    worst = replace(WELL, **{**at_once, "before": WELL.before})
    assert first_passed(SETTINGS, worst) == Passed(StopReason.clock_jump, SINCE_THE_TICK_BEFORE)
    found = [reason for reason, watchdog in WATCHDOGS if watchdog(SETTINGS, worst) is not None]
    first = [StopReason.clock_jump, StopReason.stalled, StopReason.deadman_lost]
    assert found[:3] == first
    assert found.index(StopReason.stale_input) < found.index(StopReason.bad_measurement)


def test_a_release_of_the_deadman_that_repeats_itself_is_no_later_one() -> None:
    passed_s = []
    deadman = Deadman()
    for steady_s, held in ((1.0, True), (1.25, False), (1.5, False), (1.75, False)):
        deadman = deadman.heard(held, steady_s)
        tick = replace(WELL, deadman=deadman, now=Clocks(100 * S, 40.0))
        found = first_passed(SETTINGS, tick)
        assert found is not None
        passed_s.append(found.passed_s)
    # While held: when it would have timed out.
    assert passed_s == [1.75, 1.25, 1.25, 1.25]


def test_a_decision_says_when_what_it_stops_for_happened(make_rig: Any) -> None:
    rig = make_rig().moving()
    rig.controller.disarm(StopReason.cancelled, rig.steady_s + 0.001)
    happened_s = rig.steady_s + 0.001
    decision = rig.tick()
    assert (decision.stop, decision.passed_s) == (StopReason.cancelled, happened_s)
    rig = make_rig().moving()
    before_s = rig.steady_s
    rig.controller.disarm(StopReason.bad_input)  # noticed at a tick: since the one before
    assert rig.tick().passed_s == math.nextafter(before_s, math.inf)
    rig = make_rig().moving()
    rig.looks = False
    while not rig.stops:
        decision = rig.tick()
    age_s = rig.settings.max_image_age_s
    assert rig.steady_s - rig.period_s <= decision.passed_s <= rig.steady_s
    assert decision.passed_s == pytest.approx(1000.0 + 0.11 + age_s, abs=1e-6)
