"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import Any

from qvla_offline.workers.worker import Worker, lost


@contextmanager
def local_workers(count: int) -> Iterator[list[Worker]]:
    """Starts `count` processes, which end with the block."""
    context = multiprocessing.get_context("spawn")  # a fork would share the GL driver's state
    with ExitStack() as stack:
        yield [
            _Process(
                stack.enter_context(
                    ProcessPoolExecutor(1, mp_context=context, initializer=_outlive_ctrl_c_only)
                )
            )
            for _ in range(count)
        ]


class _Process:
    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._executor.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise lost("a worker process", error) from None


def _outlive_ctrl_c_only() -> None:
    """Lets Ctrl-C, which reaches every process of the terminal, end no job.

    The process ends with its parent all the same, whatever ended that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
