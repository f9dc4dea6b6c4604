"""A signal ends what spins, wherever it arrives; an error without one is not taken for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from qvla_ros.nodes import process
from qvla_ros.nodes.libero_bridge import main as libero_bridge
from qvla_ros.nodes.policy import main as policy
from qvla_ros.nodes.process import Interrupted, ignore_signals, run_node, spin_once


class Executor:
    """Its `spin_once` is what a test says: rclpy's, as far as a signal's handler is concerned."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def spin_once(self, timeout_sec: float) -> None:
        self._work()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGINT is handled as in a node's process, which rclpy does not see here."""
    monkeypatch.setattr(process.rclpy, "init", lambda **_: None)
    monkeypatch.setattr(process.rclpy, "try_shutdown", lambda: None)
    yield
    process._received.clear()


def test_a_callback_is_over_before_a_signal_ends_what_spins() -> None:
    done: list[str] = []

    def callback() -> None:
        interrupt()
        done.append("to its end")

    def serve() -> int:
        with pytest.raises(Interrupted, match="SIGINT"):
            spin_once(Executor(callback), 0.1)  # type: ignore[arg-type]
        ignore_signals()
        spin_once(Executor(lambda: None), 0.1)  # type: ignore[arg-type] # an orderly end may spin
        return 0

    assert run_node(serve) == 0
    assert done == ["to its end"]


def test_a_second_signal_does_not_wait_for_the_callback() -> None:
    done: list[str] = []

    def callback() -> None:
        interrupt()
        interrupt()
        done.append("to its end")

    def serve() -> int:
        spin_once(Executor(callback), 0.1)  # type: ignore[arg-type]
        return 0

    assert run_node(serve) == 130
    assert done == []


def test_a_signal_outside_of_callbacks_is_raised_where_it_arrives() -> None:
    def serve() -> int:
        interrupt()
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


@pytest.mark.parametrize("main", [policy.main, libero_bridge.main], ids=["policy", "libero_bridge"])
def test_help_prints_how_a_node_is_started_and_starts_none(
    main: Callable[[list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(process.rclpy, "init", lambda **_: pytest.fail("the node was started"))
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "--ros-args -p" in text
    assert "`qvla parameters`" in text
    assert max(map(len, text.splitlines())) <= 88
