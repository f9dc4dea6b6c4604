"""A ROS 2 bag as topics, stamps and messages; all that knows how a bag is read (`rosbags`, extra
`bags`).
"""

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
    """One message: type as "package/msg/Name", moment of its arrival at the recorder (ns), CDR
    bytes.
    """

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
        """All messages of `topics` in order of arrival, with a progress bar that says `what` is
        read.
        """
        connections = [
            connection for connection in self._reader.connections if connection.topic in topics
        ]
        total = sum(self._reader.topics[topic].msgcount for topic in topics)
        for connection, received_ns, data in track(
            self._reader.messages(connections), f"reading the bag's {what}", total
        ):
            yield RawMessage(connection.topic, connection.msgtype, received_ns, data)

    def decode(self, message: RawMessage) -> Any:
        """The message's fields, by the definitions that the bag holds."""
        return self._reader.deserialize(message.data, message.kind)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """The bag at `path`: a directory, a single .mcap or .db3 file. QvlaError when it cannot be read
    to its end.
    """
    require_rosbags()
    from rosbags.highlevel import AnyReader

    try:
        with AnyReader([path], default_typestore=TypeDefinitions().store) as reader:
            yield Bag(path, reader)
    except QvlaError:
        raise
    except Exception as error:  # what the parser trips over in a damaged file has no common type
        fix = (
            "check that the recording was closed properly; `ros2 bag reindex` writes a "
            "missing metadata.yaml"
        )
        found = f"{type(error).__name__}: {error}"
        raise QvlaError(str(path), found, "a ROS 2 bag that can be read", fix) from error


def header_stamp_ns(data: bytes) -> int:
    """The stamp of a message that begins with std_msgs/Header, from its CDR bytes: four that tell
    the byte order, then int32 seconds, uint32 nanoseconds.
    """
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds
