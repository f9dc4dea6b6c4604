"""Hands results of worker threads to the executor's thread, where all callbacks run.

Only the newest result of each thread is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.node import Node


class Handover:
    """`post(key, function)` from any thread: `function()` runs on the executor's thread, soon.

    Latest only: what waits under the same key is replaced, so a busy executor does not pile up old
    images. A task of the executor and not a guard condition, which rclpy's events executor has none
    of; as that one dies of what a task raises, without a stop, an error is kept for `raise_error`.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], object]] = {}
        self._destroyed = False
        self._error: Exception | None = None

    def post(self, key: str, function: Callable[[], object]) -> None:
        """Have `function` run in place of what waits under `key`.

        Nothing happens after destroy, or while the node has no executor.
        """
        executor = self._node.executor
        with self._lock:
            if self._destroyed or executor is None:
                return
            self._waiting[key] = function
        executor.create_task(self._run)

    def raise_error(self) -> None:
        """Raises again what a posted function has raised.

        Call it on the executor's thread, from a timer.
        """
        error = self._error
        self._error = None
        if error is not None:
            raise error

    def destroy(self) -> None:
        """Forgets what waits. Not from within a posted function."""
        with self._lock:
            self._destroyed = True
            self._waiting.clear()

    def _run(self) -> None:
        with self._lock:
            functions = list(self._waiting.values())
            self._waiting = {}
        for function in functions:
            try:
                function()
            except Exception as error:
                self._error = self._error or error
