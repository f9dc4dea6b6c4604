"""Writes serialised messages into an MCAP bag on its own thread: no caller waits for a disk."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.recording.definitions import TypeDefinitions, require_rosbags

# What may wait for a slow disk: ten seconds of two 640x480 cameras at 15 Hz.
MAX_PENDING_BYTES = 256 << 20
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class OfferedQos:
    """The quality of service of a topic's publishers, which `ros2 bag play` then offers again."""

    depth: int
    reliable: bool
    transient_local: bool


class BagWriter:
    """Writes `out`.unfinished/ and renames it to `out` when it is closed.

    One thread calls the methods. A recorder that was killed leaves the unfinished directory, whose
    .mcap file lacks its end.
    """

    def __init__(self, out: Path, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        require_rosbags()
        self.out = out
        self._directory = out.with_name(out.name + UNFINISHED)
        for path, fix in (
            (out, "name a new directory"),
            (self._directory, "another recorder writes it, or one died"),
        ):
            if path.exists():
                raise QvlaError(
                    "bag", f"{path}, which exists", "a name that is free", f"{fix}; or remove it"
                )
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.dropped: Counter[str] = Counter()
        self.messages = 0
        self.written_bytes = 0
        self._error: Exception | None = None
        self._definitions = TypeDefinitions()
        self._topics: dict[str, dict[str, Any]] = {}
        # Only the writing thread uses it, and the writer too until that thread ends.
        self._connections: dict[str, Any] = {}
        self._condition = threading.Condition()
        self._pending: deque[tuple[str, int, bytes]] = deque()
        self._pending_bytes = 0
        self._max_pending_bytes = max_pending_bytes
        self._closing = False
        self._writer = Writer(
            self._directory / out.name, version=9, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.open()
        self._thread = threading.Thread(target=self._write_all, name="bag", daemon=True)
        self._thread.start()

    def add_topic(self, topic: str, kind: str, qos: OfferedQos) -> bool:
        """Adds `topic` before its first message; False if the definition of its type is missing."""
        if not self._definitions.learn(kind):
            return False
        store = self._definitions.store
        described = {
            "msgdef": store.generate_msgdef(kind, ros_version=2)[0],
            "rihs01": store.hash_rihs01(kind),
        }
        self._topics[topic] = {
            "msgtype": kind,
            **described,
            "offered_qos_profiles": [_profile(qos)],
        }
        return True

    def put(self, topic: str, received_ns: int, data: bytes) -> None:
        """Queues a message; it is dropped and counted while too many wait.

        QvlaError when writing has failed.
        """
        with self._condition:
            if self._error is not None:
                self._raise(self._error)
            if self._pending_bytes + len(data) > self._max_pending_bytes:
                self.dropped[topic] += 1
                return
            self._pending.append((topic, received_ns, data))
            self._pending_bytes += len(data)
            self._condition.notify()

    def close(self) -> Path | None:
        """Writes the queued messages, ends the bag and returns its path.

        None if there was no message; then nothing is left on the disk.
        """
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()
        try:
            self._writer.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None:
            self._raise(self._error)
        written = self._directory / self.out.name
        if self.messages:
            os.replace(written, self.out)
        else:
            for file in written.iterdir():
                file.unlink()
            written.rmdir()
        self._directory.rmdir()
        return self.out if self.messages else None

    def _write_all(self) -> None:
        while True:
            with self._condition:
                while not self._pending and not self._closing:
                    self._condition.wait()
                if not self._pending or self._error is not None:
                    return
                topic, received_ns, data = self._pending.popleft()
            try:
                if topic not in self._connections:
                    self._connections[topic] = self._writer.add_connection(
                        topic, **self._topics[topic]
                    )
                self._writer.write(self._connections[topic], received_ns, data)
                self.messages += 1
                self.written_bytes += len(data)
            except Exception as error:  # raised by the next call of `put` or `close`
                self._error = error
            with self._condition:
                self._pending_bytes -= len(data)

    def _raise(self, error: Exception) -> None:
        fix = "free some space; what was written until then is in that directory"
        raise QvlaError(
            f"bag {self._directory}", f"{type(error).__name__}: {error}", "a disk to write on", fix
        )


def _profile(qos: OfferedQos) -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(9223372036, 854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=qos.depth,
        reliability=QosReliability.RELIABLE if qos.reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if qos.transient_local else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
