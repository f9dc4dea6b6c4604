"""Bags as rosbags writes them give what the policy node would have seen.

Both storages are read, and what is missing is named.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from qvla_offline.datasets.observed import Needs
from qvla_offline.datasets.rosbag_reader import read_rosbag
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.recording.source import BagSource

TYPES = get_typestore(Stores.ROS2_KILTED)
MESSAGES = TYPES.types
NEEDS = Needs(("front", "wrist"), (True, False), ("eef_x", "eef_axis_angle_z", "finger"), "world")
PERIOD_NS = 100_000_000
START_NS = 1_700_000_000 * 10**9


def header(stamp_ns: int, frame: str = "world") -> Any:
    stamp = MESSAGES["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
    return MESSAGES["std_msgs/msg/Header"](stamp, frame)


def image(stamp_ns: int, shade: int, encoding: str = "bgr8") -> Any:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = (shade, 0, 200)  # blue, green, red
    return MESSAGES["sensor_msgs/msg/Image"](
        header(stamp_ns), 4, 6, encoding, 0, 18, pixels.reshape(-1)
    )


def compressed(stamp_ns: int, shade: int) -> Any:
    data = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(data, "PNG")
    content = np.frombuffer(data.getvalue(), np.uint8)
    return MESSAGES["sensor_msgs/msg/CompressedImage"](header(stamp_ns), "png", content)


def joints(stamp_ns: int, position: float) -> Any:
    none = np.zeros(0)
    positions = np.array([9.0, position])
    return MESSAGES["sensor_msgs/msg/JointState"](
        header(stamp_ns), ["elbow", "gripper_joint"], positions, none, none
    )


def pose(stamp_ns: int, x: float, frame: str = "world") -> Any:
    point = MESSAGES["geometry_msgs/msg/Point"](x, 0.0, 0.0)
    quarter_turn = MESSAGES["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.5**0.5, 0.5**0.5)
    return MESSAGES["geometry_msgs/msg/PoseStamped"](
        header(stamp_ns, frame), MESSAGES["geometry_msgs/msg/Pose"](point, quarter_turn)
    )


def write_bag(path: Path, storage: StoragePlugin = StoragePlugin.MCAP, **changes: Any) -> Path:
    """Ten moments, of which the third brings the instruction.

    The wrist's images are 10 ms older than the front's.
    """
    lag_ns = changes.get("wrist_lag_ns", 10_000_000)
    frame = changes.get("frame", "world")
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}

        def write(topic: str, message: Any, received_ns: int) -> None:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], received_ns, TYPES.serialize_cdr(message, kind))

        for index in range(10):
            now_ns = START_NS + index * PERIOD_NS
            if index == 2:
                write(
                    "/arm/instruction", MESSAGES["std_msgs/msg/String"]("pick up the milk"), now_ns
                )
            write("/arm/joint_states", joints(now_ns - 5_000_000, index * 0.001), now_ns)
            write("/arm/ee_pose", pose(now_ns - 5_000_000, index * 0.1, frame), now_ns)
            write(
                "/arm/camera/wrist/image_raw", compressed(now_ns - lag_ns, 10 * index), now_ns + 1
            )
            write(
                "/arm/camera/front/image_raw",
                image(now_ns, 10 * index, changes.get("encoding", "bgr8")),
                now_ns + 2,
            )
    return path


def read(path: Path, count: int | None = None, needs: Needs = NEEDS, **changes: Any):
    source = {"joint_names": {"finger": "gripper_joint"}} | changes
    return read_rosbag(path, BagSource(str(path), **source), needs, count)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_each_moment_with_an_instruction_is_what_the_policy_would_have_seen(tmp_path, storage):
    observed = read(write_bag(tmp_path / "bag", storage))
    assert len(observed) == 8
    for index, found in enumerate(observed, start=2):
        assert found.text == "pick up the milk"
        front, wrist = found.images
        assert front.shape == (4, 6, 3)
        assert front[0, 0].tolist() == [200, 0, 10 * index]  # red first
        assert (wrist == 10 * index).all()
        assert np.allclose(found.proprioception, [index * 0.1, np.pi / 2, index * 0.001])
        assert found.rotate_180 == (True, False)
    stamps = [found.where.partition(", ")[2] for found in read(tmp_path / "bag", 2)]
    assert stamps == ["1700000000.200 s", "1700000000.800 s"]


def test_a_fixed_instruction_needs_no_topic_and_a_policy_without_state_no_joints(tmp_path):
    needs = Needs(("wrist",), (False,), (), "world")
    assert {
        found.text for found in read(write_bag(tmp_path / "bag"), None, needs, instruction="wave")
    } == {"wave"}


def test_a_missing_topic_is_named_with_those_that_would_fit(tmp_path):
    bag = write_bag(tmp_path / "bag")
    with pytest.raises(QvlaError, match=r"/front.*no such topic.*front/image_raw") as caught:
        read(bag, cameras={"front": "/front"})
    assert "/arm/camera/wrist/image_raw" in str(caught.value)
    assert "joint_states" not in caught.value.expected
    with pytest.raises(
        QvlaError, match=r"ee_pose \(geometry_msgs/msg/PoseStamped\).*expected.*JointState"
    ):
        read(bag, joint_states="/arm/ee_pose")


def test_streams_that_never_meet_are_refused_with_the_distance(tmp_path):
    bag = write_bag(tmp_path / "bag", wrist_lag_ns=30_000_000)
    assert len(read(bag)) == 8
    with pytest.raises(QvlaError, match=r"wrist.*0\.030 s, at most 0\.02 s"):
        read(bag, max_spread_s=0.02)


def test_joints_and_poses_that_are_not_the_policys_are_refused(tmp_path):
    bag = write_bag(tmp_path / "bag", frame="base")
    with pytest.raises(QvlaError, match="frame_id .*got 'base'; expected 'world'"):
        read(bag)
    assert len(read(bag, pose_frame="base")) == 8
    with pytest.raises(
        QvlaError, match=r"got \['elbow', 'gripper_joint'\]; expected also finger.*joint_names"
    ):
        read(bag, joint_names=None, pose_frame="base")


def test_an_encoding_that_is_not_colour_is_named_with_its_topic(tmp_path):
    bag = write_bag(tmp_path / "bag", encoding="16UC1")
    with pytest.raises(QvlaError, match=r"encoding on /arm/camera/front/image_raw .*got '16UC1'"):
        read(bag)


@pytest.mark.parametrize(
    ("storage", "suffix"), [(StoragePlugin.MCAP, "mcap"), (StoragePlugin.SQLITE3, "db3")]
)
def test_a_storage_file_is_read_without_its_directory_and_a_damaged_one_is_named(
    tmp_path, storage, suffix
):
    [file] = write_bag(tmp_path / "bag", storage).glob(f"*.{suffix}")
    assert len(read(file)) == 8
    whole = file.read_bytes()
    for kept in (0, 100, len(whole) // 2):
        file.write_bytes(whole[:kept])
        with pytest.raises(QvlaError, match="expected a ROS 2 bag that can be read"):
            read(tmp_path / "bag")


@pytest.mark.parametrize("change", ["gone", "no storage", "no YAML", "cut", "empty"])
def test_files_of_a_bag_are_read_without_their_metadata_and_it_is_said(tmp_path, change):
    bag = write_bag(tmp_path / "bag")
    metadata = bag / "metadata.yaml"
    text = metadata.read_text()
    if change == "gone":
        metadata.unlink()
    else:
        broken = {
            "no storage": text.replace("storage_identifier: mcap", 'storage_identifier: ""'),
            "no YAML": text + "\n}{",
            "cut": text[: len(text) // 2],
            "empty": "",
        }
        assert broken[change] != text
        metadata.write_text(broken[change])
    with pytest.warns(QvlaWarning, match=r"read without metadata\.yaml"):
        assert len(read(bag)) == 8


def test_a_file_that_the_metadata_do_not_name_is_not_read_and_it_is_said(tmp_path):
    bag = write_bag(tmp_path / "bag")
    (bag / "recovered.mcap").write_bytes((bag / "bag.mcap").read_bytes())
    with pytest.warns(QvlaWarning, match=r"recovered\.mcap is not read"):
        assert len(read(bag)) == 8


def test_a_recording_that_was_cut_off_is_told_the_tool_for_its_storage(tmp_path):
    [file] = write_bag(tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(QvlaError, match=f"mcap recover {file} -o .*bag_recovered.mcap"):
        read(tmp_path / "bag")
    [file] = write_bag(tmp_path / "other", StoragePlugin.SQLITE3).glob("*.db3")
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(QvlaError, match=rf"sqlite3 {file} \.dump .*_recovered\.db3") as caught:
        read(tmp_path / "other")
    if shutil.which("sqlite3"):
        command, recovered = caught.value.fix.removeprefix("run `").split("`, and name ")
        subprocess.run(command, shell=True, check=True, stderr=subprocess.DEVNULL)
        assert len(read(Path(recovered))) >= 5


def test_a_bag_of_ros_1_is_told_how_to_be_converted(tmp_path):
    file = tmp_path / "old.bag"
    file.write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(QvlaError, match=f"rosbags-convert --src {file} --dst {tmp_path / 'old'}"):
        read(file)


def test_moments_that_are_left_out_are_counted_with_the_reason(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag")
    with pytest.warns(QvlaWarning, match="8 of 10 moments are used; left out: no instruction"):
        assert len(read(bag)) == 8
    plain = header
    monkeypatch.setitem(globals(), "header", lambda stamp_ns, frame="world": plain(0, frame))
    unstamped = write_bag(tmp_path / "unstamped")
    with pytest.warns(QvlaWarning, match="1 of 10 moments are used; left out: the header of 10 "):
        assert len(read(unstamped, instruction="wave")) == 1


def test_a_bag_of_one_robot_among_several_needs_the_whole_name(tmp_path):
    bag = tmp_path / "bag"
    text = MESSAGES["std_msgs/msg/String"]("wave")
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for arm in ("left", "right"):
            connection = writer.add_connection(
                f"/{arm}/camera/wrist/image_raw", compressed(0, 0).__msgtype__, typestore=TYPES
            )
            writer.write(
                connection,
                1,
                TYPES.serialize_cdr(compressed(START_NS, 50), compressed(0, 0).__msgtype__),
            )
        connection = writer.add_connection("/instruction", text.__msgtype__, typestore=TYPES)
        writer.write(connection, 0, TYPES.serialize_cdr(text, text.__msgtype__))
    needs = Needs(("wrist",), (False,), (), "world")
    with pytest.raises(
        QvlaError, match="/left/camera/wrist/image_raw .*, /right/camera/wrist/image_raw"
    ):
        read(bag, None, needs)
    assert len(read(bag, None, needs, cameras={"wrist": "/left/camera/wrist/image_raw"})) == 1
