"""Counting: pairs by their start, the exact McNemar test, latencies over chunks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.episodes import EpisodeRecord, Pairing, pair, parse_episode, summarize


def episode(policy: str, task: int, state: int, success: bool, **changes) -> EpisodeRecord:
    values = {
        "duration_s": 6.0,
        "inference_ms": (10.0, 30.0),
        "stamp_to_command_ms": (20.0,),
        "jerk_m_s3": 1.0,
    }
    return EpisodeRecord(
        policy, task, "pick", state, success, 80, video=None, **{**values, **changes}
    )


def test_pairs_are_matched_by_task_and_initial_state_not_by_order() -> None:
    episodes = [
        episode("float", 0, 0, True),
        episode("float", 0, 1, True),
        episode("float", 1, 0, False),
        episode("quantized", 1, 0, True),
        episode("quantized", 0, 1, False),
        episode("quantized", 0, 0, True),
        episode("quantized", 5, 9, True),  # nobody ran it with the other policy
    ]
    assert pair(episodes, "float", "quantized") == Pairing("float", "quantized", 1, 1, 1, 0)


def test_mcnemar_matches_the_binomial_table() -> None:
    assert Pairing("a", "b", 10, 0, 0, 5).p_value == 1.0
    assert Pairing("a", "b", 0, 5, 0, 0).p_value == pytest.approx(2 / 32)
    assert Pairing("a", "b", 0, 8, 2, 0).p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_a_probability_and_treats_both_policies_alike(first: int, second: int) -> None:
    p = Pairing("a", "b", 3, first, second, 2).p_value
    assert 0 < p <= 1
    assert p == Pairing("a", "b", 3, second, first, 2).p_value


def test_summary_counts_by_task_and_takes_percentiles_over_all_chunks() -> None:
    episodes = [
        episode("float", 0, 0, True, inference_ms=(1.0, 3.0)),
        episode("float", 2, 0, False, inference_ms=(5.0,), jerk_m_s3=None),
        episode("other", 0, 0, True, inference_ms=(900.0,)),
    ]
    summary = summarize(episodes, "float")
    assert (summary.successes, summary.trials, summary.by_task) == (1, 2, {0: (1, 1), 2: (0, 1)})
    assert summary.inference_ms[0] == 3.0
    assert summary.jerk_m_s3 == 1.0


def test_summary_of_no_episode_has_no_latency_and_an_open_interval() -> None:
    summary = summarize([], "float")
    assert summary.interval == (0.0, 1.0)
    assert math.isnan(summary.inference_ms[0])
    assert math.isnan(summary.jerk_m_s3)


def test_a_chunk_without_a_latency_leaves_the_others_to_count() -> None:
    measured = vars(episode("float", 0, 0, True))
    parsed = parse_episode(
        {**measured, "inference_ms": [4.0, None, 6.0], "stamp_to_command_ms": [None]}
    )
    summary = summarize([parsed], "float")
    assert parsed.inference_ms == (4.0, 6.0)
    assert summary.inference_ms[0] == 5.0
    assert math.isnan(summary.stamp_to_command_ms[0])


def test_an_episode_line_that_lacks_a_key_is_named() -> None:
    with pytest.raises(QvlaError, match="task_id"):
        parse_episode({"event": "episode", "policy": "float"})
