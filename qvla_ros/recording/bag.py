"""Reads a ROS 2 bag: its topics, stamps and messages (with `rosbags`, extra `bags`)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import NO_KNOWN_FIX, QvlaError
from qvla_ros.progress import track
from qvla_ros.recording.damage import (
    files_without_metadata,
    require_whole,
    undecodable,
    unreadable,
)
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
        found = iter(self._reader.messages(connections))
        for connection, received_ns, data in track(
            self._all(found), f"reading the bag's {what}", total
        ):
            yield RawMessage(connection.topic, connection.msgtype, received_ns, data)

    def _all(self, found: Iterator[Any]) -> Iterator[Any]:
        """What the reader finds, with its own errors about a damaged file translated."""
        while True:
            try:
                item = next(found)
            except StopIteration:
                return
            except Exception as error:  # as when it is opened
                raise unreadable(self.path, error) from error
            yield item

    def decode(self, message: RawMessage) -> Any:
        """Decodes a message by the definitions that the bag holds."""
        try:
            return self._reader.deserialize(message.data, message.kind)
        except Exception as error:  # cut data end in any of several types
            raise undecodable(self.path, message.topic, message.kind, error) from error


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Opens a bag: a directory, or a single .mcap or .db3 file. QvlaError if it cannot be read.

    A directory whose metadata.yaml is missing or broken is read by its files, with a warning.
    """
    require_rosbags()
    from rosbags.highlevel import AnyReader

    require_whole(path)
    definitions = TypeDefinitions().store
    with ExitStack() as stack:

        def opened(paths: Sequence[Path]) -> Bag:
            reader = AnyReader(paths, default_typestore=definitions)
            return Bag(path, stack.enter_context(reader))

        try:
            try:
                bag = opened([path])
            except Exception as error:  # the parser's errors about damaged files share no type
                bag = opened(files_without_metadata(path, error))
        except QvlaError:
            raise
        except Exception as error:
            raise unreadable(path, error) from error
        yield bag


def header_stamp_ns(message: RawMessage) -> int:
    """The stamp (ns) of a message that begins with std_msgs/Header, from its CDR bytes.

    Four bytes hold the byte order, then come int32 seconds and uint32 nanoseconds.
    """
    data = message.data
    try:
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    except (struct.error, IndexError) as error:
        raise QvlaError(
            f"a message on {message.topic}",
            f"{len(data)} bytes",
            "a message that begins with a header",
            NO_KNOWN_FIX,
        ) from error
    return seconds * 10**9 + nanoseconds
