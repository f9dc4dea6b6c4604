"""Processes that do long work, and end with the command that started them.

Native code (a simulator, a compiler) sees no Ctrl-C before it comes back to Python, which may take
minutes. In a process of its own it is ended from outside.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

# A fork would share the state of a GL or CUDA driver.
_CONTEXT = multiprocessing.get_context("spawn")


def spawned(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes, which leave Ctrl-C to the one that started them."""
    return ProcessPoolExecutor(workers, mp_context=_CONTEXT, initializer=_ignore_interrupt)


@contextmanager
def ended_at_interrupt() -> Iterator[None]:
    """Ends the processes that were started within the block, at once, when Ctrl-C ends the block.

    What they write must be whole or not there, as with `atomic_file`.
    """
    before = set(multiprocessing.active_children())
    try:
        yield
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        raise


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
