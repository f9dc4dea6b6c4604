"""A signal ends what spins, wherever it arrives; what goes wrong without one is not taken for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from qvla_ros.nodes import process
from qvla_ros.nodes.process import Interrupted, ignore_signals, run_node, spin_once


class Executor:
    """Its `spin_once` is what a test says: rclpy's, as far as a signal's handler is concerned."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def spin_once(self, timeout_sec: float) -> None:
        self._work()


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def converted() -> None:
    """As pybind11 does with what is raised while it makes an argument."""
    try:
        interrupted()
    except BaseException:
        raise RuntimeError("unable to convert call argument") from None


def swallowed() -> None:
    with suppress(BaseException):
        interrupted()


@pytest.fixture(autouse=True)
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGINT is handled as in a node's process, which rclpy does not see here."""
    monkeypatch.setattr(process.rclpy, "init", lambda **_: None)
    monkeypatch.setattr(process.rclpy, "try_shutdown", lambda: None)
    yield
    process._received.clear()


@pytest.mark.parametrize("work", [interrupted, converted, swallowed])
def test_a_signal_leaves_spin_once_as_itself(work: Callable[[], None]) -> None:
    def serve() -> int:
        executor: Any = Executor(work)
        with pytest.raises(Interrupted, match="SIGINT"):
            spin_once(executor, 0.1)
        ignore_signals()
        spin_once(Executor(lambda: None), 0.1)  # type: ignore[arg-type] # an orderly end may spin
        return 0

    assert run_node(serve) == 0


@pytest.mark.parametrize("work", [interrupted, converted, swallowed])
def test_a_node_that_does_not_handle_it_ends_with_the_shells_status(work: Callable[[], None]) -> None:
    def serve() -> int:
        spin_once(Executor(work), 0.1)  # type: ignore[arg-type]
        return 0

    assert run_node(serve) == 130


def test_an_error_without_a_signal_stays_what_it_is() -> None:
    def fail() -> None:
        raise RuntimeError("of the middleware")

    def serve() -> int:
        spin_once(Executor(fail), 0.1)  # type: ignore[arg-type]
        return 0

    with pytest.raises(RuntimeError, match="middleware"):
        run_node(serve)
