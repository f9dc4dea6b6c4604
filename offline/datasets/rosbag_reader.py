"""Observations from a ROS 2 bag (mcap or sqlite), put together by stamp with the rule that the policy node has.

The bag is read twice: once for stamps, once for the messages that were chosen.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from qvla_offline.datasets.observed import Needs, Observed, decoded_image, evenly
from qvla_offline.datasets.sources import BagSource
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from qvla_ros.errors import QvlaError
from qvla_ros.nodes.image_message import rgb_pixels
from qvla_ros.observation import POSE_NAMES, Samples, Synchronizer, Waiting, joint_names, proprioception_vector
from qvla_ros.progress import track

_EXAMPLE = "config/calibration/ros2_bag.yaml"
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_JOINTS, _POSE, _TEXT = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "std_msgs/msg/String"
_HISTORY_S = 1.0  # how far back a stream is searched for what belongs to another stream's late message


@dataclass(frozen=True)
class _Topics:
    """Topics of the bag; joints, pose and instruction are None where they are not needed."""

    cameras: tuple[str, ...]
    joints: str | None
    pose: str | None
    instruction: str | None

    def stamped(self) -> list[str]:
        return [*self.cameras, *filter(None, (self.joints, self.pose))]


@dataclass(frozen=True)
class _Moment:
    """topic -> how-manieth message of it; stamp of the newest image (ns); the instruction then in force."""

    messages: dict[str, int]
    stamp_ns: int
    text: str


def read_rosbag(path: Path, source: BagSource, needs: Needs, max_samples: int | None) -> list[Observed]:
    """`max_samples` observations spread evenly over the moments at which the policy would have had one (None: all).

    Images are as published: the policy turns them as it does on the robot. QvlaError: a missing topic (it lists those
    of the bag), a topic of another type, streams that never come within `max_spread_s`, a joint or pose that is not
    what the policy reads.
    """
    with _opened(path) as reader:
        topics = _resolved(reader, path, source, needs)
        moments = _moments(reader, path, source, topics)
        chosen = [moments[index] for index in evenly(len(moments), max_samples)]
        messages = _messages(reader, topics, {pair for moment in chosen for pair in moment.messages.items()})
        types = {topic: reader.topics[topic].msgtype for topic in topics.stamped()}
    return [_observation(path, source, needs, topics, types, moment, messages) for moment in chosen]


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
            yield reader
    except QvlaError:
        raise
    except Exception as error:  # what the parser trips over in a damaged file has no common type
        fix = "check that the recording was closed properly; `ros2 bag reindex` writes a missing metadata.yaml"
        found = f"{type(error).__name__}: {error}"
        raise QvlaError(str(path), found, "a ROS 2 bag that can be read", fix) from error


def _resolved(reader: AnyReader, path: Path, source: BagSource, needs: Needs) -> _Topics:
    def find(key: str, name: str, types: tuple[str, ...]) -> str:
        """The topic `name`; a relative name may stand in any one namespace."""
        fitting = [topic for topic, info in reader.topics.items() if info.msgtype in types]
        found = [topic for topic in reader.topics if topic == name or (name[:1] != "/" and topic.endswith(f"/{name}"))]
        if len(found) != 1 or found[0] not in fitting:
            got = ", ".join(f"{topic} ({reader.topics[topic].msgtype})" for topic in found) or "no such topic"
            present = ", ".join(fitting) or "none; it has " + ", ".join(sorted(reader.topics))
            fix = f"name the topic as {key} in a YAML file like {_EXAMPLE}, and pass that file"
            raise QvlaError(f"{path}: {name}", got, f"one topic of type {' or '.join(types)}: {present}", fix)
        return found[0]

    cameras = tuple(
        find(
            f"cameras.{camera}", (source.cameras or {}).get(camera, f"camera/{camera}/image_raw"), (_IMAGE, _COMPRESSED)
        )
        for camera in needs.cameras
    )
    has_pose = any(name in POSE_NAMES for name in needs.proprioception)
    return _Topics(
        cameras=cameras,
        joints=find("joint_states", source.joint_states, (_JOINTS,)) if joint_names(needs.proprioception) else None,
        pose=find("ee_pose", source.ee_pose, (_POSE,)) if has_pose else None,
        instruction=find("instruction_topic", source.instruction_topic, (_TEXT,))
        if source.instruction is None
        else None,
    )


def _moments(reader: AnyReader, path: Path, source: BagSource, topics: _Topics) -> list[_Moment]:
    """When the policy node would have had a complete observation, had it listened to what the bag recorded."""
    synchronizer = Synchronizer(topics.stamped(), source.max_spread_s, max(_HISTORY_S, 2 * source.max_spread_s))
    counts: Counter[str] = Counter()
    latest_ns: dict[str, int] = {}
    now_ns, text, moments = 0, source.instruction, []
    reason = "there are no messages"
    for topic, kind, raw in _raw_messages(reader, [*topics.stamped(), *filter(None, (topics.instruction,))], "stamps"):
        if topic == topics.instruction:
            text = reader.deserialize(raw, kind).data
            continue
        stamp_ns = _header_stamp_ns(raw)
        # A stream's own stamps going back mean that the clock did (a simulation was reset); else streams just overlap.
        now_ns = stamp_ns if stamp_ns < latest_ns.get(topic, 0) else max(now_ns, stamp_ns)
        latest_ns[topic] = stamp_ns
        synchronizer.put(topic, stamp_ns, counts[topic])
        counts[topic] += 1
        if topic not in topics.cameras:
            continue
        found = synchronizer.collect(now_ns)
        if isinstance(found, Waiting):
            reason = found.reason
        elif isinstance(found, Samples) and text is None:
            reason = f"no instruction yet on {topics.instruction}"
        elif isinstance(found, Samples) and text is not None:
            newest_ns = max(found.stamps_ns[camera] for camera in topics.cameras)
            moments.append(_Moment(dict(found.values), newest_ns, text))
    if not moments:
        fix = f"check the stamps, or raise max_spread_s in a YAML file like {_EXAMPLE}"
        raise QvlaError(f"{path}: observations", reason, "a moment with a message of every topic", fix)
    return moments


def _raw_messages(reader: AnyReader, topics: list[str], what: str) -> Iterator[tuple[str, str, bytes]]:
    connections = [connection for connection in reader.connections if connection.topic in topics]
    total = sum(reader.topics[topic].msgcount for topic in topics)
    for connection, _, raw in track(reader.messages(connections), f"reading the bag's {what}", total):
        yield connection.topic, connection.msgtype, raw


def _header_stamp_ns(raw: bytes) -> int:
    """The stamp of a message that begins with std_msgs/Header, from its CDR bytes: four that tell the byte order, then
    int32 seconds, uint32 nanoseconds."""
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return seconds * 10**9 + nanoseconds


def _messages(reader: AnyReader, topics: _Topics, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    counts: Counter[str] = Counter()
    found = {}
    for topic, kind, raw in _raw_messages(reader, topics.stamped(), "messages"):
        if (topic, counts[topic]) in wanted:
            found[topic, counts[topic]] = reader.deserialize(raw, kind)
        counts[topic] += 1
    return found


def _observation(
    path: Path,
    source: BagSource,
    needs: Needs,
    topics: _Topics,
    types: dict[str, str],
    moment: _Moment,
    messages: dict[tuple[str, int], Any],
) -> Observed:
    where = f"{path}, {moment.stamp_ns * 1e-9:.3f} s"
    message = {topic: messages[topic, index] for topic, index in moment.messages.items()}
    images = tuple(_pixels(message[topic], types[topic], f"{topic} ({where})") for topic in topics.cameras)
    joints: dict[str, float] = {}
    if topics.joints is not None:
        joints = _joint_positions(message[topics.joints], source, needs, f"{topics.joints} ({where})")
    position = quaternion = None
    if topics.pose is not None:
        position, quaternion = _pose(message[topics.pose], source, needs, f"{topics.pose} ({where})")
    proprioception = proprioception_vector(needs.proprioception, joints, position, quaternion)
    return Observed(where, moment.text, images, needs.rotate_180, proprioception)


def _pixels(message: Any, kind: str, where: str) -> np.ndarray:
    if kind == _IMAGE:
        return rgb_pixels(message, where, message.height, message.width)
    fix = "name a topic that carries colour images as JPEG or PNG files"
    return decoded_image(bytes(message.data), f"image on {where}, format {message.format!r}", fix)


def _joint_positions(message: Any, source: BagSource, needs: Needs, where: str) -> dict[str, float]:
    """Positions by the policy's names."""
    if len(message.name) != len(message.position):
        found = f"{len(message.name)} names, {len(message.position)} positions"
        raise QvlaError(f"joints on {where}", found, "one position a name", "record from a driver that fills both")
    positions = dict(zip(message.name, message.position, strict=True))
    names = {name: (source.joint_names or {}).get(name, name) for name in joint_names(needs.proprioception)}
    lacking = [name for name in names.values() if name not in positions]
    if lacking:
        fix = f"say under joint_names in a YAML file like {_EXAMPLE} what they are called in the bag"
        raise QvlaError(f"joints on {where}", ", ".join(positions), f"also {', '.join(lacking)}", fix)
    return {name: positions[recorded] for name, recorded in names.items()}


def _pose(message: Any, source: BagSource, needs: Needs, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Position (m) and quaternion (xyzw)."""
    frame = source.pose_frame or needs.pose_frame
    if message.header.frame_id != frame:
        fix = f"record the pose in {frame!r}, or set pose_frame in a YAML file like {_EXAMPLE} if it is in it already"
        raise QvlaError(f"frame_id on {where}", repr(message.header.frame_id), repr(frame), fix)
    position, turn = message.pose.position, message.pose.orientation
    return (position.x, position.y, position.z), (turn.x, turn.y, turn.z, turn.w)
