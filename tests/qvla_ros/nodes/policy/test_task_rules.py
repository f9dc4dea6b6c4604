"""When a task may start and why it ends, decided without ROS."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qvla.msg import PolicyStatus

from qvla_ros.nodes.policy.snapshot import Snapshot
from qvla_ros.nodes.policy.task_rules import Result, Task, ending, goal_refusal, preemption, refusal

S = 1_000_000_000
TASK = Task("pick up the milk", 30.0, 100 * S, chunks_before=5)


def test_an_armed_and_active_node_may_start_and_may_wait_for_its_inputs(well: Snapshot) -> None:
    assert refusal("pick up the milk", 30.0, well, None) == ""
    assert (
        refusal(
            "pick up the milk",
            30.0,
            replace(well, state=PolicyStatus.WAITING, reason="no instruction"),
            None,
        )
        == ""
    )
    assert refusal("pick up the milk", math.inf, well, None) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": PolicyStatus.INACTIVE, "reason": "not active: call change_state"}, "not active"),
        (
            {"state": PolicyStatus.FAULT, "reason": "inference failed: out of memory"},
            "out of memory",
        ),
        ({"armed": False}, "disarmed. Fix: call ~/arm"),
    ],
)
def test_a_node_that_would_not_act_refuses_and_says_why(
    well: Snapshot, changes: dict, words: str
) -> None:
    assert words in refusal("pick up the milk", 30.0, replace(well, **changes), None)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, math.nan, math.inf])
def test_a_goal_needs_a_finite_time_above_zero(well: Snapshot, duration_s: float) -> None:
    assert "max_duration_s" in goal_refusal("pick up the milk", duration_s, well, None)


def test_an_empty_instruction_and_a_second_task_are_refused(well: Snapshot) -> None:
    assert "empty" in refusal(" \n", 30.0, well, None)
    assert "'pick up the milk' is being followed" in refusal("open the drawer", 30.0, well, TASK)


@given(seconds=st.floats(0.0, 200.0))
def test_a_task_lasts_exactly_as_long_as_it_may(well: Snapshot, seconds: float) -> None:
    now_ns = TASK.started_ns + round(seconds * S)
    end = ending(TASK, well, now_ns)
    over = (now_ns - TASK.started_ns) * 1e-9 >= TASK.max_duration_s
    assert (end is not None) == over
    assert end is None or end.termination == Result.DURATION
    assert 0.0 <= TASK.remaining_s(now_ns) <= TASK.max_duration_s


def test_an_unlimited_task_goes_on_and_no_duration_is_negative(well: Snapshot) -> None:
    assert TASK.duration_s(0) == 0.0
    assert ending(replace(TASK, max_duration_s=math.inf), well, 10**6 * S) is None


@pytest.mark.parametrize(
    ("changes", "termination", "begin"),
    [
        (
            {"state": PolicyStatus.FAULT, "reason": "inference failed", "armed": False},
            Result.FAULT,
            "inference failed",
        ),
        ({"armed": False, "stop_reason": "stale_input"}, Result.STOPPED, "stale_input: "),
        ({"armed": False}, Result.STOPPED, "disarmed: "),
        (
            {"state": PolicyStatus.INACTIVE, "reason": "not active", "armed": False},
            Result.STOPPED,
            "deactivated: ",
        ),
    ],
)
def test_what_stops_the_arm_ends_the_task_even_when_its_time_is_up_too(
    well: Snapshot, changes: dict, termination: int, begin: str
) -> None:
    for now_ns in (TASK.started_ns + S, TASK.started_ns + 60 * S):
        end = ending(TASK, replace(well, **changes), now_ns)
        assert end is not None
        assert end.termination == termination
        assert end.message.startswith(begin)


def test_only_a_new_text_on_the_topic_takes_over() -> None:
    assert preemption(None, "open the drawer", None) is None
    assert preemption(TASK, TASK.instruction, None) is None
    # a publisher that repeats itself
    assert preemption(TASK, "open the drawer", "open the drawer") is None
    end = preemption(TASK, "open the drawer", "close the drawer")
    assert end is not None
    assert end.termination == Result.PREEMPTED
    assert "open the drawer" in end.message


def test_steps_are_the_chunks_since_the_start(well: Snapshot) -> None:
    assert TASK.steps(replace(well, chunks_published=7)) == 2
    assert TASK.steps(replace(well, chunks_published=0)) == 0  # the node was activated again


@pytest.mark.parametrize(("back_s", "over"), [(0.05, False), (5.0, True)])
def test_a_clock_that_is_set_back_behind_its_start_ends_a_task(
    well: Snapshot, back_s: float, over: bool
) -> None:
    end = ending(TASK, well, TASK.started_ns - round(back_s * S))
    assert (end is not None) == over
    assert end is None or (end.termination, end.message[:10]) == (Result.STOPPED, "clock_jump")
