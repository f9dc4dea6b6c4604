"""Starts, spins and ends every node as a process.

Signals, bad input and exit codes are handled in one way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node

from qvla_ros.errors import QvlaError
from qvla_ros.exit_codes import BAD_INPUT
from qvla_ros.nodes.start import refusal, start_ros
from qvla_ros.plugins import load_plugins

# the last: a terminal, or ssh, that is gone
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)
SPIN_PERIOD_S = 0.1  # how long a signal may wait


class Interrupted(BaseException):
    """One of STOP_SIGNALS arrived. Not an Exception, so that no handler of errors swallows it."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


_received: list[int] = []  # signals, until an orderly end is under way
_spinning = False


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Raises at once, but not in the midst of a callback: see spin_once.

    A second signal does not wait.
    """
    _received.append(signal_number)
    if not _spinning or len(_received) > 1:
        raise Interrupted(signal_number)


def run_node(main: Callable[[], int], args: list[str] | None = None, usage: str = "") -> int:
    """Runs `main()` between rclpy.init and the shutdown, or prints `usage` if --help is asked for.

    Returns main's exit code, 2 for a QvlaError, 128 + n for a signal n.

    rclpy's own handlers would shut the context down at once; a node that stops must still be able
    to say so.
    """
    if {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
        print(usage)
        return 0
    load_plugins()
    try:
        start_ros(args)
    except QvlaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    _received.clear()
    # as under nohup
    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _interrupt) for number in heeded}
    try:
        return main()
    except QvlaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except Interrupted as interruption:
        return 128 + interruption.signal_number
    except RuntimeError as error:
        if not str(error).startswith("error creating node"):
            raise
        print(f"error: {refusal(error)}", file=sys.stderr, flush=True)
        return BAD_INPUT
    finally:
        rclpy.try_shutdown()
        for number, handler in previous.items():
            signal.signal(number, handler)


def make_executor(kind: str = "single_threaded") -> Executor:
    """Makes an executor with one thread, of a kind in qvla_ros.parameters.policy.EXECUTORS.

    QvlaError where rclpy lacks it.

    The usual one goes through everything that a node has before each message; `events`, which rclpy
    calls experimental, is woken by what there is (docs/measured.md, Control loop).
    """
    if kind == "single_threaded":
        return SingleThreadedExecutor()
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        fix = "-p executor:=single_threaded"
        raise QvlaError(
            "parameter executor", kind, "single_threaded: this rclpy has no other", fix
        ) from None
    return EventsExecutor()


def destroy(node: Node, executor: Executor | None) -> None:
    """Ends both, the executor first.

    Between two callbacks the executor holds all that it waited for. What is held stays in the
    graph, where it goes on to match, and to give late comers its last messages, until the executor
    is collected.
    """
    if executor is not None:
        executor.shutdown()
    node.destroy_node()


def spin(node: Node, executor: Executor, is_over: Callable[[], bool] = lambda: False) -> None:
    """Serves callbacks until `is_over`, or a signal arrives, which leaves this as Interrupted.

    Afterwards `destroy` both.
    """
    executor.add_node(node)
    try:
        while not is_over():
            spin_once(executor, SPIN_PERIOD_S)
    finally:
        executor.remove_node(node)


def spin_once(executor: Executor, timeout_s: float) -> None:
    """Serves one callback, or waits for it.

    A signal leaves this as Interrupted, when the callback is over.

    Raised in its midst, the exception could leave a lock held forever (threading.Condition takes
    its own in Python), and from within rclpy's C++ it would come out as another one.
    """
    global _spinning
    _spinning = True
    try:
        executor.spin_once(timeout_sec=timeout_s)
    finally:
        _spinning = False
    if _received:
        raise Interrupted(_received[-1])


def ignore_signals() -> None:
    """Ignores signals from now on: a second one must not cut an orderly end short."""
    _received.clear()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_for_sure(exit_code: int, within_s: float) -> None:
    """Ends this process by then, if it has not ended by itself: a native thread may hold it."""
    timer = threading.Timer(within_s, os._exit, (exit_code,))
    timer.daemon = True
    timer.start()
