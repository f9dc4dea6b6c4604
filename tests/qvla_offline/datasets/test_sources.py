"""The policy gets the same inputs from every kind of recording; other paths are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from qvla_offline.calibration import calibration_sha256, policy_needs, read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.datasets.lerobot_reader import read_lerobot
from qvla_offline.datasets.sources import LeRobotSource, find_source
from qvla_offline.robot import LIBERO
from qvla_ros.errors import QvlaError
from qvla_ros.recording.source import BagSource

EXAMPLES = Path(__file__).parents[3] / "config" / "calibration"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load_checkpoint(write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture(scope="module")
def observed(dataset, checkpoint):
    """The first frame of the dataset."""
    return read_lerobot(dataset, LeRobotSource(str(dataset)), policy_needs(checkpoint, LIBERO), 1)[
        0
    ]


def as_jsonl(observed, folder: Path) -> Path:
    for name, image in zip(("image.png", "wrist.png"), observed.images, strict=True):
        Image.fromarray(image).save(folder / name)
    line = {"text": observed.text, "image": "image.png", "wrist_image": "wrist.png"}
    (folder / "calibration.jsonl").write_text(
        json.dumps(line | {"proprio": observed.proprioception.tolist()}) + "\n"
    )
    return folder / "calibration.jsonl"


def as_bag(observed, path: Path) -> Path:
    """What the robot would have published: images upside down, the pose as a quaternion."""
    store = get_typestore(Stores.ROS2_KILTED)
    types = store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](5, 0), "world")
    state = observed.proprioception
    angle = np.linalg.norm(state[3:6])
    axis = np.sin(angle / 2) * state[3:6] / max(angle, 1e-12)
    pose = types["geometry_msgs/msg/Pose"](
        types["geometry_msgs/msg/Point"](*state[:3]),
        types["geometry_msgs/msg/Quaternion"](*axis, np.cos(angle / 2)),
    )
    names = ["finger_joint1", "finger_joint2"]
    empty = np.zeros(0)
    messages = {
        "/instruction": types["std_msgs/msg/String"](observed.text),
        "/joint_states": types["sensor_msgs/msg/JointState"](
            header, names, state[6:], empty, empty
        ),
        "/ee_pose": types["geometry_msgs/msg/PoseStamped"](header, pose),
    }
    for camera, image in zip(("agentview", "wrist"), observed.images, strict=True):
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image[::-1, ::-1]).reshape(-1)
        message = types["sensor_msgs/msg/Image"](
            header, height, width, "rgb8", 0, 3 * width, pixels
        )
        messages[f"/camera/{camera}/image_raw"] = message
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for index, (topic, message) in enumerate(messages.items()):
            connection = writer.add_connection(topic, message.__msgtype__, typestore=store)
            writer.write(connection, index, store.serialize_cdr(message, message.__msgtype__))
    return path


def test_a_dataset_a_bag_and_a_line_of_the_same_moment_are_the_same_inputs(
    dataset, observed, checkpoint, tmp_path
):
    [from_dataset] = read_calibration(dataset, checkpoint, max_samples=1)
    [from_line] = read_calibration(as_jsonl(observed, tmp_path), checkpoint)
    [from_bag] = read_calibration(as_bag(observed, tmp_path / "bag"), checkpoint)
    for other in (from_line, from_bag):
        assert torch.equal(from_dataset.pixel_values, other.pixel_values)
        assert torch.equal(from_dataset.input_ids, other.input_ids)
        assert torch.allclose(from_dataset.proprio, other.proprio, atol=1e-5)
    assert from_dataset.pixel_values.std() > 0.1


def test_a_yaml_file_says_where_and_how(dataset, checkpoint, tmp_path):
    (tmp_path / "swapped.yaml").write_text(
        yaml.safe_dump(
            {
                "lerobot": str(dataset),
                "cameras": {
                    "agentview": "observation.images.wrist",
                    "wrist": "observation.images.agentview",
                },
            }
        )
    )
    [straight] = read_calibration(dataset, checkpoint, max_samples=1)
    [swapped] = read_calibration(tmp_path / "swapped.yaml", checkpoint, max_samples=1)
    assert torch.equal(swapped.pixel_values, straight.pixel_values.roll(6, dims=1))
    assert calibration_sha256(tmp_path / "swapped.yaml") != calibration_sha256(dataset)


def test_the_hash_is_that_of_every_file_of_the_recording(observed, tmp_path):
    bag = as_bag(observed, tmp_path / "bag")
    before = calibration_sha256(bag)
    assert before == calibration_sha256(bag, 8)
    as_bag(dataclasses.replace(observed, text="other"), tmp_path / "other")
    assert calibration_sha256(tmp_path / "other") != before


@pytest.mark.parametrize(
    ("name", "kind"), [("lerobot.yaml", LeRobotSource), ("ros2_bag.yaml", BagSource)]
)
def test_the_examples_are_the_defaults(tmp_path, name, kind):
    content = yaml.safe_load((EXAMPLES / name).read_text())
    key = "lerobot" if kind is LeRobotSource else "ros2_bag"
    (tmp_path / "here").mkdir()
    (tmp_path / name).write_text(yaml.safe_dump(content | {key: "here"}))
    root, source = find_source(tmp_path / name)
    assert root == tmp_path / "here"
    filled = (
        dataclasses.replace(source, cameras=None, joint_names=None) if key == "ros2_bag" else source
    )
    assert dataclasses.replace(filled, cameras=None) == kind("here")
    prefix = "observation.images.{}" if kind is LeRobotSource else "camera/{}/image_raw"
    assert source.cameras == {camera.name: prefix.format(camera.name) for camera in LIBERO.cameras}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("cameras: {}\n", "0 of the keys lerobot and ros2_bag"),
        ("lerobot: nowhere\n", r"lerobot: got .*nowhere"),
        ("lerobot: .\ncamera: {}\n", r"camera: got an unknown key"),
        ("- lerobot\n", "0 of the keys"),
        ("lerobot: [\n", "calibration"),
    ],
)
def test_a_description_that_is_none_is_refused(tmp_path, content, named):
    (tmp_path / "source.yaml").write_text(content)
    with pytest.raises(QvlaError, match=named):
        find_source(tmp_path / "source.yaml")


def test_a_directory_that_is_neither_dataset_nor_bag_is_refused(tmp_path):
    with pytest.raises(QvlaError, match=r"neither meta/info\.json nor metadata\.yaml"):
        find_source(tmp_path)
    assert find_source(tmp_path / "calibration.jsonl") is None
