"""How tasks are named on the command line."""

from __future__ import annotations

import pytest

from qvla_ros.cli.task_ids import parse_task_ids, task_ids_of
from qvla_ros.errors import QvlaError


@pytest.mark.parametrize("text", ["", "a", "1,", "1,1", "-1", "3-1", "0-2,1"])
def test_task_ids_are_distinct_numbers(text: str) -> None:
    with pytest.raises(QvlaError, match="task_ids"):
        parse_task_ids(text)


def test_a_range_names_both_its_ends() -> None:
    assert parse_task_ids("7,0-2") == (7, 0, 1, 2)


def test_without_task_ids_all_tasks_of_the_suite_are_meant() -> None:
    assert task_ids_of(None, "libero_goal") == tuple(range(10))
    assert len(task_ids_of(None, "libero_90")) == 90
    assert len(task_ids_of(None, "libero_object_named")) == 50
    assert task_ids_of("7,8", "libero_goal") == (7, 8)


def test_a_suite_or_task_that_does_not_exist_is_refused() -> None:
    with pytest.raises(QvlaError, match="one of libero_spatial"):
        task_ids_of(None, "libero")
    with pytest.raises(QvlaError, match="0 to 9 in libero_goal"):
        task_ids_of("7,10", "libero_goal")
