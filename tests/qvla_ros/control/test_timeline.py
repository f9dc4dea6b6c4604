"""Which action is in force when chunks arrive late, early, twice or not at all."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from qvla_ros.control.setpoint import MotionSpec
from qvla_ros.control.timeline import ChunkTimeline, PlannedChunk

DELTA = MotionSpec("delta_end_effector_pose", 0.05, 0.5, 6)
ABSOLUTE = MotionSpec("end_effector_pose", 1.0, 1.0, 6)
JOINT = MotionSpec("joint_position", 1.0, 1.0, 1)
DT_S = 0.05
DT_NS = 50_000_000
K = 8


def chunk(stamp_ns: int, value: float, gripper: float = 0.0, count: int = K) -> PlannedChunk:
    """Actions [K, 2] of one joint, value + 0, 1, 2 ..., and a gripper."""
    return PlannedChunk(
        stamp_ns, DT_S, np.stack([value + np.arange(count), np.full(count, gripper)], axis=1)
    )


@given(st.integers(0, 10**18), st.integers(0, 9 * DT_NS))
def test_a_chunk_enters_ceil_latency_over_step_steps_late(stamp_ns: int, latency_ns: int) -> None:
    timeline = ChunkTimeline(0, JOINT)
    skipped = timeline.add(chunk(stamp_ns, 0.0), stamp_ns + latency_ns)
    expected = min(math.ceil(latency_ns / DT_NS), K)
    assert skipped == expected
    assert timeline.at(stamp_ns + expected * DT_NS - 1) is None
    for index in range(expected, K):
        for within_ns in (0, DT_NS - 1):
            assert timeline.at(stamp_ns + index * DT_NS + within_ns)[0] == index
    assert timeline.at(stamp_ns + K * DT_NS) is None
    assert len(timeline.upcoming(stamp_ns + latency_ns)) == K - expected


def test_the_old_chunk_goes_on_until_the_new_one_enters() -> None:
    timeline = ChunkTimeline(0, JOINT)
    timeline.add(chunk(0, 100.0), 0)
    assert timeline.add(chunk(120_000_000, 0.0), 230_000_000) == 3  # enters at 270 ms
    values = [timeline.at(ms * 1_000_000)[0] for ms in (230, 250, 269, 270, 319, 320)]
    assert values == [104.0, 105.0, 105.0, 3.0, 3.0, 4.0]
    assert timeline.end_ns() == 520_000_000
    assert timeline.remaining_s(500_000_000) == pytest.approx(0.02)
    assert timeline.remaining_s(600_000_000) == 0.0


@given(st.integers(1, 6))
def test_blending_goes_from_old_to_new_in_equal_parts_and_never_blends_the_gripper(
    blend_steps: int,
) -> None:
    timeline = ChunkTimeline(blend_steps, JOINT)
    timeline.add(PlannedChunk(0, DT_S, np.tile([1.0, 1.0], (20, 1))), 0)
    timeline.add(PlannedChunk(DT_NS, DT_S, np.tile([0.0, 0.0], (K, 1))), DT_NS)
    values = np.array([timeline.at((1 + index) * DT_NS) for index in range(K)])
    expected = np.clip(1.0 - np.arange(1, K + 1) / (blend_steps + 1), 0.0, 1.0)
    np.testing.assert_allclose(values[:, 0], expected, atol=1e-12)
    assert values[:, 1].tolist() == [0.0] * K


@given(st.integers(0, 2**32 - 1))
def test_absolute_rotations_are_blended_by_slerp(seed: int) -> None:
    random = np.random.default_rng(seed)
    old, new = random.uniform(-2.0, 2.0, (2, 7))
    timeline = ChunkTimeline(1, ABSOLUTE)
    timeline.add(PlannedChunk(0, DT_S, np.tile(old, (K, 1))), 0)
    timeline.add(PlannedChunk(DT_NS, DT_S, np.tile(new, (K, 1))), DT_NS)
    middle = timeline.at(DT_NS)
    np.testing.assert_allclose(middle[:3], (old[:3] + new[:3]) / 2)
    start, half, end = (Rotation.from_rotvec(action[3:6]) for action in (old, middle, new))
    whole = (end * start.inv()).magnitude()
    assert (half * start.inv()).magnitude() == pytest.approx(whole / 2, abs=1e-9)
    assert (end * half.inv()).magnitude() == pytest.approx(whole / 2, abs=1e-9)
    assert middle[6] == new[6]


@pytest.mark.parametrize("gripper", [None, 0, 3, 6])
def test_rotations_are_blended_by_slerp_in_their_own_unit_and_beside_the_gripper(
    gripper: int | None,
) -> None:
    """The rotation's columns are the last three that are not the gripper's.

    Here a unit of them is half a radian.
    """
    spec = MotionSpec("end_effector_pose", 1.0, 0.5, gripper)
    old, new = np.random.default_rng(3).uniform(-2.0, 2.0, (2, 6 if gripper is None else 7))
    turning = [column for column in range(len(old)) if column != gripper][-3:]
    timeline = ChunkTimeline(1, spec)
    timeline.add(PlannedChunk(0, DT_S, np.tile(old, (K, 1))), 0)
    timeline.add(PlannedChunk(DT_NS, DT_S, np.tile(new, (K, 1))), DT_NS)
    middle = timeline.at(DT_NS)
    start, half, end = (
        Rotation.from_rotvec(0.5 * action[turning]) for action in (old, middle, new)
    )
    whole = (end * start.inv()).as_rotvec()
    np.testing.assert_allclose((half * start.inv()).as_rotvec(), whole / 2, atol=1e-9)
    moving = [column for column in range(len(old)) if column not in (*turning, gripper)]
    np.testing.assert_allclose(middle[moving], (old[moving] + new[moving]) / 2)


def test_blending_small_delta_rotations_linearly_is_slerp_but_for_rounding() -> None:
    timeline = ChunkTimeline(1, DELTA)
    old = np.array([0, 0, 0, 0.2, 0, 0, 0.0])
    new = np.array([0, 0, 0, 0, 0.2, 0, 0.0])
    timeline.add(PlannedChunk(0, DT_S, np.tile(old, (K, 1))), 0)
    timeline.add(PlannedChunk(DT_NS, DT_S, np.tile(new, (K, 1))), DT_NS)
    half = Rotation.from_rotvec(0.5 * timeline.at(DT_NS)[3:6])
    start = Rotation.from_rotvec(0.5 * old[3:6])
    end = Rotation.from_rotvec(0.5 * new[3:6])
    slerped = Rotation.from_rotvec(0.5 * (end * start.inv()).as_rotvec()) * start
    assert (half * slerped.inv()).magnitude() < 1e-4


def test_a_chunk_not_newer_than_the_one_in_force_is_refused() -> None:
    timeline = ChunkTimeline(2, JOINT)
    assert timeline.add(chunk(DT_NS, 0.0), DT_NS) == 0
    before = timeline.upcoming(DT_NS)
    assert timeline.add(chunk(DT_NS, 50.0), DT_NS) is None
    assert timeline.add(chunk(0, 50.0), DT_NS) is None
    np.testing.assert_array_equal(timeline.upcoming(DT_NS), before)


def test_a_chunk_that_comes_after_its_last_step_has_begun_changes_nothing() -> None:
    timeline = ChunkTimeline(0, JOINT)
    timeline.add(chunk(0, 0.0), 0)
    assert timeline.add(chunk(10, 50.0, count=2), 3 * DT_NS) == 2
    assert timeline.at(3 * DT_NS)[0] == 3.0
    # nor does it bar one that is still of use
    assert timeline.add(chunk(5, 60.0), 3 * DT_NS) is not None


def test_of_a_chunk_of_two_the_first_is_blended_too() -> None:
    timeline = ChunkTimeline(1, JOINT)
    timeline.add(chunk(0, 4.0, count=2), 0)
    timeline.add(chunk(DT_NS, 0.0, count=2), DT_NS)
    assert timeline.at(DT_NS)[0] == 2.5  # half of 5 and half of 0
    assert timeline.at(2 * DT_NS)[0] == 1.0


def test_a_chunk_of_the_very_moment_enters_with_its_last_step() -> None:
    """Its last step begins now, not in the past."""
    timeline = ChunkTimeline(0, JOINT)
    assert timeline.add(chunk(0, 0.0, count=2), DT_NS) == 1
    assert timeline.at(DT_NS)[0] == 1.0
    assert timeline.end_ns() == 2 * DT_NS


def test_the_plans_remaining_time_is_in_seconds_from_now() -> None:
    timeline = ChunkTimeline(0, JOINT)
    assert timeline.end_ns() is None
    assert timeline.remaining_s(0) == 0.0
    timeline.add(chunk(7 * DT_NS, 0.0, count=3), 7 * DT_NS)
    assert timeline.remaining_s(8 * DT_NS) == pytest.approx(2 * DT_S)
    assert timeline.remaining_s(10 * DT_NS) == 0.0


def test_what_is_upcoming_starts_with_the_action_in_force() -> None:
    timeline = ChunkTimeline(0, JOINT)
    timeline.add(chunk(0, 0.0, count=3), 0)
    assert timeline.upcoming(-1)[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert timeline.upcoming(DT_NS - 1)[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert timeline.upcoming(DT_NS)[:, 0].tolist() == [1.0, 2.0]
    assert timeline.upcoming(3 * DT_NS).shape == (0, 0)


def test_after_a_flush_there_is_no_plan_and_looks_from_before_are_refused() -> None:
    timeline = ChunkTimeline(0, JOINT)
    timeline.add(chunk(0, 0.0), 0)
    timeline.flush(oldest_ns=2 * DT_NS)
    assert timeline.at(2 * DT_NS) is None
    assert timeline.upcoming(0).shape == (0, 0)
    assert timeline.add(chunk(2 * DT_NS - 1, 0.0), 2 * DT_NS) is None
    assert timeline.add(chunk(2 * DT_NS, 0.0), 2 * DT_NS) == 0
    timeline.flush()
    assert timeline.add(chunk(0, 0.0), 0) == 0  # as after a clock that was set back


def test_between_two_plans_there_may_be_a_gap() -> None:
    timeline = ChunkTimeline(0, JOINT)
    timeline.add(chunk(0, 0.0, count=2), 0)
    timeline.add(chunk(5 * DT_NS, 7.0), 0)
    assert timeline.at(3 * DT_NS) is None
    parts = [(step.action[0], *span) for step, *span in timeline.between(DT_NS, 6 * DT_NS)]
    assert parts == [(1.0, DT_NS, 2 * DT_NS), (7.0, 5 * DT_NS, 6 * DT_NS)]


@given(st.lists(st.integers(0, 3 * DT_NS), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_the_parts_of_any_stretch_of_time_are_in_order_and_as_at_says(
    gaps: list[int], seed: int
) -> None:
    timeline = ChunkTimeline(2, JOINT)
    now_ns = 0
    for index, gap_ns in enumerate(gaps):
        now_ns += gap_ns + 1
        timeline.add(chunk(now_ns - gap_ns, 100.0 * index), now_ns)
    begin_ns, end_ns = sorted(
        np.random.default_rng(seed).integers(now_ns, now_ns + 12 * DT_NS, 2).tolist()
    )
    covered_ns = 0
    last_ns = begin_ns
    for step, start_ns, stop_ns in timeline.between(begin_ns, end_ns):
        assert last_ns <= start_ns < stop_ns <= end_ns
        for moment_ns in (start_ns, stop_ns - 1):
            np.testing.assert_array_equal(timeline.at(moment_ns), step.action)
        covered_ns = covered_ns + stop_ns - start_ns
        last_ns = stop_ns
    if (
        begin_ns < end_ns
        and timeline.at(begin_ns) is not None
        and timeline.at(end_ns - 1) is not None
    ):
        assert covered_ns == end_ns - begin_ns


@given(st.integers(0, 20 * DT_NS), st.integers(0, 3))
def test_a_single_action_enters_whenever_it_comes_and_whole(
    latency_ns: int, blend_steps: int
) -> None:
    timeline = ChunkTimeline(blend_steps, JOINT)
    timeline.add(chunk(0, 7.0, count=1), 0)
    assert timeline.add(chunk(1, 3.0, count=1), 1 + latency_ns) == 0
    assert timeline.at(1 + latency_ns)[0] == 3.0
    assert timeline.end_ns() == 1 + latency_ns + DT_NS
    assert timeline.add(chunk(1, 5.0, count=1), 2 + latency_ns) is None  # of the same image
