"""A policy acts on samples that are fresh and belong together; else the stream is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.errors import QvlaError
from qvla_ros.observation import Samples, Synchronizer, Waiting, proprioception_vector

MS = 1_000_000


def _synchronizer() -> Synchronizer:
    return Synchronizer(["camera", "joints"], max_spread_s=0.02, max_age_s=0.5)


def test_it_waits_for_every_stream_and_names_the_missing_one() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 0, "image")
    assert synchronizer.collect(0) == Waiting("nothing received yet on joints")


def test_a_complete_set_is_handed_out_once() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 5 * MS, "image")
    synchronizer.put("joints", 0, "state")
    assert synchronizer.collect(6 * MS) == Samples(
        {"camera": "image", "joints": "state"}, {"camera": 5 * MS, "joints": 0}
    )
    assert synchronizer.collect(7 * MS) is None


def test_a_new_image_is_not_paired_with_the_last_joint_state() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 0, "image 0")
    synchronizer.put("joints", 0, "state 0")
    assert isinstance(synchronizer.collect(0), Samples)
    synchronizer.put("camera", 10 * MS, "image 1")
    assert synchronizer.collect(10 * MS) is None
    synchronizer.put("joints", 10 * MS, "state 1")
    assert synchronizer.collect(10 * MS).values == {"camera": "image 1", "joints": "state 1"}


def test_a_stale_stream_is_named_with_its_age_and_the_limit() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 0, "image")
    synchronizer.put("joints", 0, "state")
    reason = synchronizer.collect(700 * MS).reason
    assert "stale" in reason
    assert "0.700 s" in reason
    assert "0.5 s" in reason


def test_the_age_of_a_stale_stream_counts_from_its_own_stamp() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 200 * MS, "image")
    synchronizer.put("joints", 200 * MS, "state")
    assert "0.700 s ago" in synchronizer.collect(900 * MS).reason


def test_streams_too_far_apart_are_named() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 100 * MS, "image")
    synchronizer.put("joints", 0, "state")
    assert synchronizer.collect(100 * MS).reason.startswith("joints lags camera by 0.100 s")


def test_stamps_from_the_future_point_at_the_clocks() -> None:
    synchronizer = _synchronizer()
    for stream in ("camera", "joints"):
        synchronizer.put(stream, 900 * MS, stream)
    assert "synchronise the clocks" in synchronizer.collect(0).reason


@pytest.mark.parametrize(("lead_ns", "used"), [(50 * MS, True), (50 * MS + 1, False)])
def test_a_stamp_may_lie_in_the_future_by_less_than_in_the_past(lead_ns: int, used: bool) -> None:
    synchronizer = Synchronizer(["camera"], max_spread_s=0.02, max_age_s=0.5, max_lead_s=0.05)
    synchronizer.put("camera", 10**9 + lead_ns, "picture")
    assert isinstance(synchronizer.collect(10**9), Samples) is used


def test_a_sample_is_used_until_it_is_exactly_as_old_as_allowed() -> None:
    for age_ns, used in ((500 * MS, True), (500 * MS + 1, False)):
        synchronizer = _synchronizer()
        for stream in ("camera", "joints"):
            synchronizer.put(stream, 10**9, stream)
        assert isinstance(synchronizer.collect(10**9 + age_ns), Samples) is used


def test_a_stamp_may_lead_the_clock_by_exactly_as_much_as_a_sample_may_be_old() -> None:
    """Clocks of two computers differ; the clock that leads is named with its lead in seconds."""
    now_ns = 10**9
    for lead_ms, used in ((1, True), (500, True), (501, False)):
        synchronizer = _synchronizer()
        synchronizer.put("camera", now_ns + lead_ms * MS, "image")
        synchronizer.put("joints", now_ns + lead_ms * MS - 15 * MS, "state")
        found = synchronizer.collect(now_ns)
        assert isinstance(found, Samples) is used
    assert found == Waiting(
        "camera is stamped 0.501 s in the future: synchronise the clocks of both machines "
        "(chrony), check use_sim_time"
    )


def test_samples_may_be_exactly_as_far_apart_as_allowed() -> None:
    for spread_ns, used in ((20 * MS, True), (20 * MS + 1000, False)):
        synchronizer = _synchronizer()
        synchronizer.put("joints", 10**9, "state")
        synchronizer.put("camera", 10**9 + spread_ns, "image")
        assert isinstance(synchronizer.collect(10**9 + spread_ns), Samples) is used


def test_a_late_camera_meets_a_joint_state_that_is_exactly_as_old_as_allowed() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("joints", 0, "state 0")
    synchronizer.put("joints", 500 * MS, "state 500")
    synchronizer.put("camera", 0, "image 0")
    assert synchronizer.collect(500 * MS).values == {"camera": "image 0", "joints": "state 0"}


def test_of_two_samples_with_one_stamp_the_later_counts() -> None:
    synchronizer = _synchronizer()
    synchronizer.put("camera", 0, "image")
    synchronizer.put("joints", 0, "first state")
    synchronizer.put("joints", 0, "second state")
    assert synchronizer.collect(0).values["joints"] == "second state"


def test_asking_twice_at_one_time_is_no_jump_back() -> None:
    synchronizer = _synchronizer()
    for stream in ("camera", "joints"):
        synchronizer.put(stream, 5 * MS, stream)
    assert isinstance(synchronizer.collect(5 * MS), Samples)
    assert synchronizer.collect(5 * MS) is None


def test_a_clock_that_jumps_back_forgets_what_came_before() -> None:
    synchronizer = _synchronizer()
    for stream in ("camera", "joints"):
        synchronizer.put(stream, 900 * MS, stream)
    assert isinstance(synchronizer.collect(900 * MS), Samples)
    assert synchronizer.collect(10 * MS) == Waiting("nothing received yet on camera, joints")
    for stream in ("camera", "joints"):
        synchronizer.put(stream, 20 * MS, stream)
    assert isinstance(synchronizer.collect(20 * MS), Samples)


def test_a_discarded_stream_counts_as_missing() -> None:
    synchronizer = _synchronizer()
    for stream in ("camera", "joints"):
        synchronizer.put(stream, 0, stream)
    synchronizer.discard("camera")
    assert synchronizer.collect(0) == Waiting("nothing received yet on camera")


@given(
    st.lists(
        st.tuples(st.sampled_from(["camera", "joints"]), st.integers(0, 50), st.integers(0, 100)),
        max_size=60,
    )
)
def test_every_set_is_complete_fresh_close_together_and_new_in_every_stream(events: list) -> None:
    synchronizer = _synchronizer()
    now = 10**9
    last = {"camera": -1, "joints": -1}
    for stream, gap_ms, age_ms in events:
        now += gap_ms * MS
        synchronizer.put(stream, now - age_ms * MS, stream)
        samples = synchronizer.collect(now)
        if isinstance(samples, Samples):
            stamps = samples.stamps_ns.values()
            assert samples.values == {"camera": "camera", "joints": "joints"}
            assert max(stamps) - min(stamps) <= 20 * MS
            assert now - min(stamps) <= 500 * MS
            assert all(samples.stamps_ns[stream] > last[stream] for stream in last)
            last = samples.stamps_ns


@given(latency_ms=st.integers(0, 300), phase_ms=st.integers(0, 9), frames=st.integers(1, 12))
def test_each_image_of_a_late_camera_meets_the_joint_state_of_its_moment(
    latency_ms: int, phase_ms: int, frames: int
) -> None:
    synchronizer = _synchronizer()
    sets = []
    images_ms = [1000 + 40 * index for index in range(frames)]
    for now_ms in range(990 + phase_ms, images_ms[-1] + latency_ms + 10):
        if (now_ms - phase_ms) % 10 == 0:
            synchronizer.put("joints", now_ms * MS, now_ms)
        if now_ms - latency_ms in images_ms:
            synchronizer.put("camera", (now_ms - latency_ms) * MS, now_ms - latency_ms)
        if isinstance(samples := synchronizer.collect(now_ms * MS), Samples):
            assert samples.stamps_ns == {
                stream: value * MS for stream, value in samples.values.items()
            }
            sets.append(samples.values)
    assert [values["camera"] for values in sets] == images_ms
    # Only an image that overtakes the joint states is matched before the state nearest to it
    # exists.
    assert all(
        abs(values["joints"] - values["camera"]) <= (5 if latency_ms >= 10 else 10)
        for values in sets
    )


@given(st.lists(st.integers(-5, 50), max_size=200))
def test_the_history_of_a_stream_is_bounded_and_in_order_whatever_its_stamps_do(
    gaps_ms: list[int],
) -> None:
    synchronizer = _synchronizer()
    stamp = 10**9
    for gap_ms in gaps_ms:
        stamp += gap_ms * MS
        synchronizer.put("joints", stamp, None)
        stamps = [stamp for stamp, _ in synchronizer._histories["joints"]]
        assert stamps[-1] == stamp
        assert stamps == sorted(set(stamps))
        assert stamps[-1] - stamps[0] <= 500 * MS


def test_proprioception_is_matched_by_name_and_refuses_to_invent_a_joint() -> None:
    names = ("eef_z", "finger", "eef_axis_angle_x")
    values = proprioception_vector(names, {"elbow": 9.0, "finger": 0.04}, [1, 2, 3], [1, 0, 0, 0])
    np.testing.assert_allclose(values, [3, 0.04, np.pi])
    with pytest.raises(
        QvlaError, match=r"joint_states: got names \['elbow'\]; expected also \['finger'\]"
    ):
        proprioception_vector(names, {"elbow": 9.0}, [1, 2, 3], [1, 0, 0, 0])


def test_half_a_pose_is_no_pose_and_joints_do_not_need_one() -> None:
    position = [1.0, 2.0, 3.0]
    quaternion = [1.0, 0.0, 0.0, 0.0]
    for pose in ((None, None), (position, None), (None, quaternion)):
        assert proprioception_vector(("finger",), {"finger": 0.04}, *pose).tolist() == [0.04]
