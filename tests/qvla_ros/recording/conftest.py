"""A bag of one arm with a policy node, written by hand: its inputs and possible chunks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.observation import Observation
from qvla_ros.policy import Policy, load_policy
from qvla_ros.recording.definitions import CHUNK_TYPE, TypeDefinitions
from qvla_ros.recording.source import IMAGE, JOINTS, POSE, TEXT
from qvla_ros.recording.writer import BagWriter, OfferedQos
from qvla_ros.simulation.specification import CAMERA_NAMES, FINGER_NAMES, POSE_FRAME

START_NS = 1_700_000_000 * 10**9
PERIOD_NS = 100_000_000
TEXTS = ("pick up the milk", "pick up the cup")
QOS = OfferedQos(1, True, False)


@pytest.fixture(scope="session")
def definitions() -> TypeDefinitions:
    return TypeDefinitions()


@pytest.fixture(scope="session")
def message(definitions: TypeDefinitions) -> Callable[..., Any]:
    """message(type, stamp_ns of the header or None, frame_id, **fields)."""
    types = definitions.store.types

    def make(kind: str, stamp_ns: int | None = None, frame: str = "", /, **fields: Any) -> Any:
        if stamp_ns is not None:
            stamp = types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
            fields["header"] = types["std_msgs/msg/Header"](stamp, frame)
        return types[kind](**fields)

    return make


@pytest.fixture(scope="session")
def tiny_policy(bundle_dir: Path) -> Policy:
    return load_policy(bundle_dir, "onnxruntime", threads=1)


@pytest.fixture
def write(tmp_path: Path, definitions: TypeDefinitions) -> Callable[..., Path]:
    """write(name, [(topic, message, received_ns)]) -> the bag."""

    def run(name: str, messages: list[tuple[str, Any, int]]) -> Path:
        writer = BagWriter(tmp_path / name)
        for topic, content, received_ns in messages:
            kind = content.__msgtype__
            assert writer.add_topic(topic, kind, QOS)
            writer.put(topic, received_ns, bytes(definitions.store.serialize_cdr(content, kind)))
        path = writer.close()
        assert path is not None
        return path

    return run


def position_m(number: int, late: bool) -> tuple[float, float, float]:
    return 0.05 * number + (0.02 if late else 0.0), -0.1, 0.2


@pytest.fixture
def recorded(message: Callable[..., Any], tiny_policy: Policy) -> list[tuple[str, Any, int]]:
    """Messages of six observations: images, joints, two poses 20 ms apart, and the policy's chunk.

    The policy used the later pose. The chunk of an observation is recorded before its second image,
    since the order of topics in a recording is chance.
    """
    found: list[tuple[str, Any, int]] = [
        ("/arm/instruction", message(TEXT, data=TEXTS[0]), START_NS - 1)
    ]
    for number in range(6):
        now_ns = START_NS + number * PERIOD_NS
        text = TEXTS[number // 3]
        if number == 3:
            found.append(("/arm/instruction", message(TEXT, data=text), now_ns - 1))
        for late in (False, True):
            stamp_ns = now_ns + 10_000_000 * (1 if late else -1)
            x, y, z = position_m(number, late)
            pose = message(
                "geometry_msgs/msg/Pose",
                position=message("geometry_msgs/msg/Point", x=x, y=y, z=z),
                orientation=message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            )
            found.append(("/arm/ee_pose", message(POSE, stamp_ns, POSE_FRAME, pose=pose), stamp_ns))
        fingers = {"name": list(FINGER_NAMES), "position": np.array([0.5, -0.5])}
        nothing = np.zeros(0)
        joints = message(JOINTS, now_ns, **fingers, velocity=nothing, effort=nothing)
        found.append(("/arm/joint_states", joints, now_ns))
        shape = {"height": 32, "width": 32, "encoding": "rgb8", "is_bigendian": 0, "step": 96}
        images = [
            message(IMAGE, now_ns, **shape, data=np.full(3072, 40 * number, np.uint8))
            for _ in CAMERA_NAMES
        ]
        topics = [f"/arm/camera/{name}/image_raw" for name in CAMERA_NAMES]
        found.append((topics[0], images[0], now_ns + 1))
        found.append(
            (
                "/arm/policy/action_chunk",
                chunk(message, tiny_policy, number, now_ns, text, topics),
                now_ns + 2,
            )
        )
        found.append((topics[1], images[1], now_ns + 3))
    return found


def chunk(
    message: Callable[..., Any],
    policy: Policy,
    number: int,
    now_ns: int,
    text: str,
    cameras: list[str],
) -> Any:
    pixels = {name: np.full((32, 32, 3), 40 * number, np.uint8) for name in CAMERA_NAMES}
    proprioception = np.array([*position_m(number, late=True), 0.0, 0.0, 0.0, 0.5, -0.5])
    actions = policy.infer(Observation(pixels, proprioception, text, now_ns, {})).actions
    stamps_ns = {
        **dict.fromkeys(cameras, now_ns),
        "/arm/joint_states": now_ns,
        "/arm/ee_pose": now_ns + 10_000_000,
    }
    spec = policy.bundle.actions
    return message(
        CHUNK_TYPE,
        now_ns,
        POSE_FRAME,
        bundle_id=policy.bundle.bundle_id,
        instruction=text,
        armed=number > 2,
        input_topics=list(stamps_ns),
        input_stamps=[
            message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
            for stamp_ns in stamps_ns.values()
        ],
        kind=spec.kind,
        names=list(spec.names),
        units=list(spec.units),
        step_dt=spec.control_period_s,
        horizon=len(actions),
        data=actions.ravel(),
        latency_names=["inference"],
        latency_ms=np.array([7.5], np.float32),
    )


@pytest.fixture
def bundle(bundle_dir: Path) -> Any:
    return load_bundle(bundle_dir)
