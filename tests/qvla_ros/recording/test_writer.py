"""A bag appears under its name only when it is whole, with its message definitions.

No caller waits for it.
"""

from __future__ import annotations

import threading

import pytest
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader

from qvla_ros.errors import QvlaError
from qvla_ros.recording.bag import open_bag
from qvla_ros.recording.definitions import CHUNK_TYPE
from qvla_ros.recording.writer import BagWriter, OfferedQos

LATCHED = OfferedQos(1, True, True)


def test_a_bag_explains_its_own_messages(write, recorded, tmp_path):
    path = write("bag", recorded)
    assert {file.name for file in path.iterdir()} == {"metadata.yaml", "bag.mcap"}
    with AnyReader([path]) as reader:  # no definitions but the bag's
        [connection] = [c for c in reader.connections if c.msgtype == CHUNK_TYPE]
        _, _, data = next(reader.messages([connection]))
        assert reader.deserialize(data, CHUNK_TYPE).input_topics[-1] == "/arm/ee_pose"
        assert connection.digest.startswith("RIHS01_")


def test_what_publishers_offer_is_kept_for_playing_it_again(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    assert writer.add_topic("/instruction", "std_msgs/msg/String", LATCHED)
    writer.put("/instruction", 5, b"\0\1\0\0\2\0\0\0a\0")
    writer.close()
    with Reader(tmp_path / "bag") as reader:
        [qos] = reader.connections[0].ext.offered_qos_profiles
    assert (qos.reliability, qos.durability) == (
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
    )


def test_messages_that_a_slow_disk_cannot_take_are_dropped_and_counted(tmp_path, monkeypatch):
    writer = BagWriter(tmp_path / "bag", max_pending_bytes=100)
    writer.add_topic("/text", "std_msgs/msg/String", LATCHED)
    busy = threading.Event()
    released = threading.Event()
    write = writer._writer.write

    def slow(*arguments):
        busy.set()
        released.wait()
        write(*arguments)

    monkeypatch.setattr(writer._writer, "write", slow)
    writer.put("/text", 0, bytes(60))
    busy.wait()
    for at_ns in range(1, 4):
        writer.put("/text", at_ns, bytes(30))  # one fits beside the one at work
    assert writer.dropped == {"/text": 2}
    released.set()
    writer.close()
    with open_bag(tmp_path / "bag") as bag:
        assert [message.received_ns for message in bag.messages(["/text"], "text")] == [0, 1]


def test_a_full_disk_is_reported_and_leaves_the_unfinished_directory(tmp_path, monkeypatch):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/text", "std_msgs/msg/String", LATCHED)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._writer, "write", fail)
    writer.put("/text", 0, b"1")
    writer._thread.join(10)
    for action in (lambda: writer.put("/text", 1, b"2"), writer.close):
        with pytest.raises(QvlaError, match="No space left on device"):
            action()
    assert not (tmp_path / "bag").exists()
    assert (tmp_path / "bag.unfinished").is_dir()
    with pytest.raises(QvlaError, match=r"bag\.unfinished, which exists"):
        BagWriter(tmp_path / "bag")


def test_without_messages_there_is_no_bag(tmp_path):
    assert BagWriter(tmp_path / "bag").close() is None
    assert not list(tmp_path.iterdir())


def test_an_existing_name_and_an_unknown_type_are_refused(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(QvlaError, match="which exists"):
        BagWriter(tmp_path / "bag")
    writer = BagWriter(tmp_path / "other")
    assert not writer.add_topic("/thing", "nobody_msgs/msg/Thing", LATCHED)
    writer.close()
