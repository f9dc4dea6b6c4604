"""From worker threads to the executor's thread: the newest result of each, run where all callbacks run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node


class Handover:
    """`post(key, function)` from any thread: `function()` runs on the executor's thread, soon.

    Latest only: what waits under the same key is replaced, so a busy executor does not pile up old images.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], object]] = {}
        self._guard: Any = node.create_guard_condition(self._run)

    def post(self, key: str, function: Callable[[], object]) -> None:
        """Have `function` run in place of what waits under `key`; nothing happens after destroy."""
        with self._lock:
            if self._guard is not None:
                self._waiting[key] = function
                self._guard.trigger()

    def destroy(self) -> None:
        """Forget what waits. Not from within a posted function."""
        with self._lock:
            guard, self._guard = self._guard, None
            self._waiting.clear()
        if guard is not None:
            self._node.destroy_guard_condition(guard)

    def _run(self) -> None:
        with self._lock:
            functions, self._waiting = list(self._waiting.values()), {}
        for function in functions:
            function()
