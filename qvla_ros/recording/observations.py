"""Turns moments of a bag into observations, decoding messages as the policy node does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import joint_positions, pose_in
from qvla_ros.observation import Observation, joint_names, proprioception_vector
from qvla_ros.recording.bag import Bag
from qvla_ros.recording.moments import Moment
from qvla_ros.recording.source import EXAMPLE, BagSource, InputTopics, ObservationNames

# (camera, message, its type, where it is from for an error) -> uint8 [H, W, 3], RGB
PixelReader = Callable[[str, Any, str, str], NDArray[Any]]


def read_observations(
    bag: Bag,
    source: BagSource,
    inputs: ObservationNames,
    topics: InputTopics,
    moments: Sequence[Moment],
    pixels: PixelReader,
) -> Iterator[Observation]:
    """Reads the observations of `moments`, in their order, which is that of the bag.

    Images are as they were published. Few messages are in memory at a time. QvlaError if a joint or
    a pose is not as the policy needs it.
    """
    for moment, messages in _with_messages(bag, topics, moments):
        where = f"{bag.path}, {moment.stamp_ns * 1e-9:.3f} s"
        images = {
            camera: pixels(camera, messages[topic], bag.types[topic], f"{topic} ({where})")
            for camera, topic in zip(inputs.cameras, topics.cameras, strict=True)
        }
        joints: dict[str, float] = {}
        if topics.joints is not None:
            joints = _joints(messages[topics.joints], source, inputs, f"{topics.joints} ({where})")
        position = quaternion = None
        if topics.pose is not None:
            pose = _pose(messages[topics.pose], source, inputs, f"{topics.pose} ({where})")
            position = pose.position_m
            quaternion = pose.quaternion_xyzw
        proprioception = proprioception_vector(inputs.proprioception, joints, position, quaternion)
        yield Observation(
            images, proprioception, moment.instruction, moment.stamp_ns, moment.stamps_ns
        )


def _with_messages(
    bag: Bag, topics: InputTopics, moments: Sequence[Moment]
) -> Iterator[tuple[Moment, dict[str, Any]]]:
    """Each moment with its messages by topic; messages that no later moment needs are dropped."""
    uses = Counter(pair for moment in moments for pair in moment.messages.items())
    held: dict[tuple[str, int], Any] = {}
    counts: Counter[str] = Counter()
    stream = bag.messages(topics.stamped(), "messages")
    for moment in moments:
        while any(pair not in held for pair in moment.messages.items()):
            message = next(stream)
            pair = message.topic, counts[message.topic]
            counts[message.topic] += 1
            if uses[pair]:
                held[pair] = bag.decode(message)
        yield moment, {topic: held[topic, index] for topic, index in moment.messages.items()}
        for pair in moment.messages.items():
            uses[pair] -= 1
            if not uses[pair]:
                del held[pair]


def _joints(
    message: Any, source: BagSource, inputs: ObservationNames, where: str
) -> dict[str, float]:
    """Positions by the policy's names."""
    names = {
        name: (source.joint_names or {}).get(name, name)
        for name in joint_names(inputs.proprioception)
    }
    try:
        positions = joint_positions(message, where, list(names.values()))
    except QvlaError as error:
        fix = f"give their names in the bag under joint_names in a YAML file like {EXAMPLE}"
        raise QvlaError(error.key, error.value, error.expected, fix) from None
    return {name: positions[recorded] for name, recorded in names.items()}


def _pose(message: Any, source: BagSource, inputs: ObservationNames, where: str) -> Any:
    try:
        return pose_in(message, where, source.pose_frame or inputs.pose_frame)
    except QvlaError as error:
        fix = (
            "record the pose in that frame, or set pose_frame in a YAML file like "
            f"{EXAMPLE} if it is in it already"
        )
        raise QvlaError(error.key, error.value, error.expected, fix) from None
