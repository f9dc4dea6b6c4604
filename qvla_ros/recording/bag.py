"""Reads a ROS 2 bag: its topics, stamps and messages (with `rosbags`, extra `bags`)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.progress import track
from qvla_ros.recording.definitions import TypeDefinitions, require_rosbags


@dataclass(frozen=True)
class RawMessage:
    """One message in CDR bytes. kind: "package/msg/Name"; received_ns: at the recorder."""

    topic: str
    kind: str
    received_ns: int
    data: bytes


class Bag:
    """An open bag. types: topic -> its type."""

    def __init__(self, path: Path, reader: Any) -> None:
        self.path = path
        self._reader = reader
        self.types: dict[str, str] = {topic: info.msgtype for topic, info in reader.topics.items()}

    def messages(self, topics: Collection[str], what: str) -> Iterator[RawMessage]:
        """All messages of `topics` in order of arrival; `what` names them in the progress bar."""
        connections = [
            connection for connection in self._reader.connections if connection.topic in topics
        ]
        total = sum(self._reader.topics[topic].msgcount for topic in topics)
        for connection, received_ns, data in track(
            self._reader.messages(connections), f"reading the bag's {what}", total
        ):
            yield RawMessage(connection.topic, connection.msgtype, received_ns, data)

    def decode(self, message: RawMessage) -> Any:
        """Decodes a message by the definitions that the bag holds."""
        return self._reader.deserialize(message.data, message.kind)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Opens a bag: a directory, or a single .mcap or .db3 file. QvlaError if it cannot be read."""
    require_rosbags()
    from rosbags.highlevel import AnyReader

    try:
        with AnyReader([path], default_typestore=TypeDefinitions().store) as reader:
            yield Bag(path, reader)
    except QvlaError:
        raise
    except Exception as error:  # the parser's errors about a damaged file have no common type
        fix = (
            "check that the recording was closed properly; `ros2 bag reindex` writes a "
            "missing metadata.yaml"
        )
        found = f"{type(error).__name__}: {error}"
        raise QvlaError(str(path), found, "a ROS 2 bag that can be read", fix) from error


def header_stamp_ns(data: bytes) -> int:
    """The stamp (ns) of a message that begins with std_msgs/Header, from its CDR bytes.

    Four bytes hold the byte order, then come int32 seconds and uint32 nanoseconds.
    """
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds
