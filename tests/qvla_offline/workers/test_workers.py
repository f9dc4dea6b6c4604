"""Work gives the same wherever it runs, and its errors come back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qvla_offline.workers.opening import open_workers
from qvla_offline.workers.worker import Worker
from qvla_ros.engines import find_engine
from qvla_ros.errors import QvlaError


@pytest.fixture(scope="module", params=[None, "local"], ids=["processes", "ray"])
def workers(request: pytest.FixtureRequest) -> Iterator[list[Worker]]:
    with open_workers(2, request.param) as opened:
        yield opened


def test_each_worker_is_a_process_of_its_own_that_lasts(workers: list[Worker]) -> None:
    first, second = (worker.call(os.getpid) for worker in workers)
    assert len({first, second, os.getpid()}) == 3
    assert [worker.call(os.getpid) for worker in workers] == [first, second]


def test_an_error_comes_back_as_it_was_raised(workers: list[Worker]) -> None:
    with pytest.raises(QvlaError, match="backend") as raised:
        workers[0].call(find_engine, "abacus")
    assert raised.value.value == "'abacus'"
    assert workers[0].call(sum, [1, 2]) == 3


def test_a_process_that_ends_in_a_job_is_reported() -> None:
    with open_workers(1) as [worker], pytest.raises(QvlaError, match="a worker process"):
        worker.call(os._exit, 1)


def test_at_least_one_worker_is_asked_for() -> None:
    with pytest.raises(QvlaError, match="workers"), open_workers(0):
        pass
