"""A small intact bag of one arm: two cameras, joints, poses and an instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qvla_offline.datasets.observed import Needs
from qvla_ros.recording.definitions import TypeDefinitions
from qvla_ros.recording.writer import BagWriter, OfferedQos

BAG_NEEDS = Needs(("front", "wrist"), (True, False), ("eef_x", "finger"), "world")
START_NS = 1_700_000_000 * 10**9
PERIOD_NS = 100_000_000
MOMENTS = 4


def write_small_bag(path: Path) -> Path:
    """Writes it, as `qvla record` does, to the directory `path`."""
    store = TypeDefinitions().store
    types = store.types
    writer = BagWriter(path)

    def put(topic: str, message: Any, received_ns: int) -> None:
        kind = message.__msgtype__
        writer.add_topic(topic, kind, OfferedQos(1, True, False))
        writer.put(topic, received_ns, bytes(store.serialize_cdr(message, kind)))

    put("/arm/instruction", types["std_msgs/msg/String"]("pick up the milk"), START_NS - 1)
    none = np.zeros(0)
    for index in range(MOMENTS):
        now_ns = START_NS + index * PERIOD_NS
        stamp = types["builtin_interfaces/msg/Time"](now_ns // 10**9, now_ns % 10**9)
        header = types["std_msgs/msg/Header"](stamp, "world")
        joints = types["sensor_msgs/msg/JointState"](
            header, ["finger"], np.array([0.01 * index]), none, none
        )
        pose = types["geometry_msgs/msg/PoseStamped"](
            header,
            types["geometry_msgs/msg/Pose"](
                types["geometry_msgs/msg/Point"](0.1 * index, 0.0, 0.0),
                types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
            ),
        )
        put("/arm/joint_states", joints, now_ns)
        put("/arm/ee_pose", pose, now_ns + 1)
        for place, camera in enumerate(("front", "wrist")):
            pixels = np.full(4 * 6 * 3, 10 * index + place, np.uint8)
            image = types["sensor_msgs/msg/Image"](header, 4, 6, "rgb8", 0, 18, pixels)
            put(f"/arm/camera/{camera}/image_raw", image, now_ns + 2 + place)
    written = writer.close()
    assert written is not None
    return written
