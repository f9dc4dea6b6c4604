"""The topics that a policy node reads, with the check that each of their messages must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from qvla_ros.bundle import Bundle
from qvla_ros.messages.kinds import COMPRESSED_IMAGE, IMAGE, JOINTS, POSE, TEXT
from qvla_ros.messages.pixels import pixels_of
from qvla_ros.messages.robot_state import (
    joint_positions,
    measured_by,
    needed_joints,
    needs_pose,
    pose_in,
)
from qvla_ros.parameters.policy import InputParameters, PolicyParameters
from qvla_ros.parameters.table import from_values
from qvla_ros.ros_graph import Endpoint
from qvla_ros.specifications import CameraSpec

MAX_AGE_S = InputParameters().max_image_age_s
SENSOR = Endpoint("the policy", "", reliable=False, transient_local=False)
LATCHED = Endpoint("the policy", "", reliable=True, transient_local=True)

# (message, its type, topic); raises a QvlaError
MessageCheck = Callable[[Any, str, str], object]


@dataclass(frozen=True)
class Input:
    """A topic that the policy reads.

    kinds: usual name -> type. check: raises a QvlaError for a message that the policy cannot use.
    wish: the subscription that the policy node makes. max_age_s: of messages that it still uses.
    """

    name: str
    kinds: Mapping[str, str]
    check: MessageCheck
    wish: Endpoint
    max_age_s: float = MAX_AGE_S


def needed_inputs(
    bundle: Bundle,
    namespace: str,
    remaps: Mapping[str, str] = MappingProxyType({}),
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> list[Input]:
    """The topics that a policy node with this bundle subscribes to in `namespace` ("" or "/arm").

    remaps: as in a robot's remaps.yaml. parameters: the node's, as in a robot's node.yaml; what is
    commanded must be measured.
    """
    root = f"/{namespace.strip('/')}".rstrip("/")

    def topic_of(name: str) -> str:
        topic = remaps.get(name, name)
        return topic if topic.startswith("/") else f"{root}/{topic}"

    given = from_values(PolicyParameters, parameters)
    max_age_s = given.inputs.max_image_age_s
    images = [
        _image(topic_of(f"camera/{camera.name}/image_raw"), camera, max_age_s)
        for camera in bundle.cameras
    ]
    text = topic_of("instruction")
    return [
        *images,
        *_states(bundle, given, topic_of),
        Input(text, {text: TEXT}, lambda m, _, t: None, LATCHED),
    ]


def _image(topic: str, camera: CameraSpec, max_age_s: float) -> Input:
    def check(message: Any, kind: str, name: str) -> object:
        return pixels_of(message, kind, name, camera.height, camera.width)

    kinds = {topic: IMAGE, f"{topic}/compressed": COMPRESSED_IMAGE}
    return Input(topic, kinds, check, SENSOR, max_age_s)


def _states(
    bundle: Bundle, given: PolicyParameters, topic_of: Callable[[str], str]
) -> Iterator[Input]:
    """The joints and the pose, where the policy reads them or the output measures them."""
    measured = measured_by(given.commands, bundle)
    max_age_s = given.inputs.max_image_age_s
    joints = needed_joints(bundle, measured)
    frame = bundle.actions.frame
    if joints:
        topic = topic_of("joint_states")
        check: MessageCheck = lambda m, _, t: joint_positions(m, t, joints)  # noqa: E731
        yield Input(topic, {topic: JOINTS}, check, SENSOR, max_age_s)
    if needs_pose(bundle, measured) and given.inputs.pose_source == "topic":
        topic = topic_of("ee_pose")
        yield Input(topic, {topic: POSE}, lambda m, _, t: pose_in(m, t, frame), SENSOR, max_age_s)


def unused_remaps(remaps: Mapping[str, str], bundle: Bundle | None) -> list[str]:
    """Remapped names that are no input of a policy: with a misspelled one, nothing is remapped.

    bundle: whose cameras; None: any camera is one.
    """
    cameras = None if bundle is None else {camera.name for camera in bundle.cameras}

    def is_input(name: str) -> bool:
        folder, _, rest = name.removesuffix("/compressed").partition("/")
        camera, _, last = rest.rpartition("/")
        if folder == "camera" and last == "image_raw":
            return bool(camera) and (cameras is None or camera in cameras)
        return name in ("joint_states", "ee_pose", "instruction")

    return [name for name in remaps if not name.startswith(("~", "/")) and not is_input(name)]
