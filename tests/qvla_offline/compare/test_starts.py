"""Wherever an interruption comes, suites, tasks and states have had their turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_offline.compare.starts import episodes_of, round_robin
from qvla_ros.errors import QvlaError

SUITES = ("libero_object", "libero_spatial", "libero_object_named")


@given(st.integers(1, 60), st.integers(0, 180))
def test_every_beginning_is_balanced(number: int, stop: int) -> None:
    starts = round_robin(dict.fromkeys(SUITES, number))
    assert len(set(starts)) == len(starts) == len(SUITES) * number
    begun = starts[:stop]
    by_suite = Counter(start.suite for start in begun)
    by_task = Counter((start.suite, start.task_id) for start in begun)
    assert max(by_suite.values(), default=0) - min(by_suite[suite] for suite in SUITES) <= 1
    for suite in SUITES[:2]:
        counts = [by_task[suite, task] for task in range(10)]
        assert max(counts) - min(counts) <= 1


def test_a_suite_may_have_fewer_episodes_than_another() -> None:
    starts = round_robin({"libero_object": 12, "libero_spatial": 2})
    assert Counter(start.suite for start in starts) == {"libero_object": 12, "libero_spatial": 2}
    assert [start.init_state for start in starts if start.suite == "libero_object"][-2:] == [1, 1]


@pytest.mark.parametrize(
    ("episodes", "key"),
    [({"libero_moon": 1}, "suites"), ({"libero_object": 501}, "episodes"), ({"fake": 0}, "episo")],
)
def test_starts_that_do_not_exist_are_refused(episodes: dict[str, int], key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        round_robin(episodes)


def test_one_number_stands_for_all_suites() -> None:
    assert episodes_of("3", "a,b") == {"a": 3, "b": 3}
    assert episodes_of("3,4", "a,b") == {"a": 3, "b": 4}
    for text, suites in (("3,4", "a"), ("x", "a"), ("3", "a,a"), ("", "a")):
        with pytest.raises(QvlaError, match="episodes and suites"):
            episodes_of(text, suites)
