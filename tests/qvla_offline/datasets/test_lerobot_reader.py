"""LeRobot datasets in every layout that users have give what the policy would have seen.

What is wrong with a dataset is named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qvla_offline.datasets.lerobot_reader import read_lerobot
from qvla_offline.datasets.observed import Needs
from qvla_offline.datasets.sources import LeRobotSource
from qvla_reference.demonstrations import episode_path, read_episode
from qvla_reference.samples import proprio_of
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.simulation.specification import PROPRIOCEPTION_NAMES

NEEDS = Needs(("agentview", "wrist"), (True, True), PROPRIOCEPTION_NAMES, "world")


def read(root: Path, count: int | None = None, needs: Needs = NEEDS, **source):
    return read_lerobot(root, LeRobotSource(str(root), **source), needs, count)


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy"))


def as_version_2(root: Path, version: str) -> None:
    """Rewrite a v3.0 dataset in the layout of v2.0 and v2.1: a file an episode, JSON lines."""
    rows = pq.read_table(root / "data/chunk-000/file-000.parquet")
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "meta/episodes")
    (root / "meta/tasks.parquet").unlink()
    path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    for episode in episodes:
        index = episode["episode_index"]
        file = root / path.format(episode_chunk=index // 2, episode_index=index)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.slice(episode["dataset_from_index"], episode["length"]), file)
    keys = ("episode_index", "length", "tasks")
    lines = {
        "tasks": tasks,
        "episodes": [{key: episode[key] for key in keys} for episode in episodes],
    }
    for name, content in lines.items():
        (root / f"meta/{name}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in content)
        )
    edit_json(
        root / "meta/info.json",
        lambda i: i.update(codebase_version=version, chunks_size=2, data_path=path),
    )


@pytest.mark.parametrize("version", ["v3.0", "v2.1", "v2.0"])
def test_frames_come_back_as_they_were_recorded(copy, demonstrations, version):
    if version != "v3.0":
        as_version_2(copy, version)
    observed = read(copy)
    recordings = [
        read_episode(episode_path(demonstrations, "libero_object", task, 0)) for task in (0, 1)
    ]
    expected = [
        (episode, index) for episode in recordings for index in range(len(episode.image_steps))
    ]
    for found, (episode, index) in zip(observed, expected, strict=True):
        assert found.text == episode.facts["instruction"]
        assert np.array_equal(found.proprioception, proprio_of(episode)[episode.image_steps[index]])
        assert found.rotate_180 == (False, False)
        for image, camera in zip(found.images, NEEDS.cameras, strict=True):
            assert (
                np.abs(image - episode.image(camera, index)[::-1, ::-1].astype(float)).max() <= 10
            )
    assert [found.where[-18:] for found in read(copy, 3)] == [
        "episode 0, frame 0",
        "episode 1, frame 0",
        "episode 1, frame 1",
    ]


def test_features_instruction_and_orientation_follow_the_description(copy):
    needs = Needs(("front",), (False,), ("finger_joint2", "eef_x"), "world")
    source = {
        "cameras": {"front": "observation.images.wrist"},
        "state_dimensions": (7, 0),
        "rotate_180": ("front",),
    }
    [found, *_] = read(copy, needs=needs, instruction="wave", **source)
    [whole, *_] = read(copy)
    assert found.text == "wave"
    assert found.rotate_180 == (True,)
    assert np.array_equal(found.images[0], whole.images[1])
    assert found.proprioception.tolist() == whole.proprioception[[7, 0]].tolist()


def test_a_policy_without_proprioception_needs_no_state(copy):
    edit_json(copy / "meta/info.json", lambda info: info["features"].pop("observation.state"))
    assert read(copy, 1, Needs(("wrist",), (True,), (), "world"))[0].proprioception.size == 0
    with pytest.raises(QvlaError, match=r"observation\.state.*no such feature.*action"):
        read(copy, 1)


def test_unknown_features_and_states_of_another_width_are_named(copy):
    with pytest.raises(
        QvlaError, match=r"front.*one of observation.images.agentview, observation.images.wrist"
    ):
        read(copy, cameras={"agentview": "front"})
    with pytest.raises(QvlaError, match="of type float32"):
        read(copy, cameras={"agentview": "action"})
    with pytest.raises(QvlaError, match=r"action: got 7 numbers.*expected 8"):
        read(copy, state="action")
    with pytest.raises(QvlaError, match="expected 8"):
        read(copy, state_dimensions=(0, 1, 2, 3, 4, 5, 6, 8))


def test_a_broken_dataset_is_named_and_nothing_outside_it_is_read(copy):
    edit_json(
        copy / "meta/info.json",
        lambda info: info.update(data_path="../../etc/{chunk_index}{file_index}"),
    )
    with pytest.raises(QvlaError, match="inside the dataset"):
        read(copy)
    edit_json(
        copy / "meta/info.json", lambda info: info.update(data_path="data/{file_index}.parquet")
    )
    with pytest.raises(QvlaError, match=r"episode 0, frame 0.*0\.parquet"):
        read(copy)
    edit_json(copy / "meta/info.json", lambda info: info.pop("fps"))
    with pytest.raises(QvlaError, match="KeyError: 'fps'"):
        read(copy)
    edit_json(copy / "meta/info.json", lambda info: info.update(codebase_version="v1.6"))
    with pytest.raises(QvlaError, match=r"v1\.6.*v3\.0"):
        read(copy)


def named(root: Path, names) -> None:
    """Names the numbers of the state in info.json."""
    edit_json(
        root / "meta/info.json",
        lambda info: info["features"]["observation.state"].update(names=names),
    )


@pytest.mark.parametrize(
    "inside",
    [
        lambda names: names,
        lambda names: {"motors": names},
        lambda names: [names],
        lambda names: {"arm": names[:5], "gripper": names[5:]},
        lambda names: {name: names.index(name) for name in sorted(names)},
        lambda names: {"motors": {name: names.index(name) for name in sorted(names)}},
    ],
)
def test_a_state_whose_numbers_have_names_is_read_by_name(copy, inside):
    state = "observation.state"
    before = read(copy, 4)
    file = copy / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    turned = [row[::-1] for row in table[state].to_pylist()]
    place = table.column_names.index(state)
    column = pa.array(turned, table.schema.field(state).type)
    pq.write_table(table.set_column(place, table.schema.field(state), column), file)
    named(copy, inside(list(PROPRIOCEPTION_NAMES[::-1])))
    for found, expected in zip(read(copy, 4), before, strict=True):
        assert found.proprioception.tolist() == expected.proprioception.tolist()


@pytest.mark.parametrize("names", [None, [], "eef_x", ["eef_x"] * 7])
def test_a_state_without_a_name_for_each_number_is_read_by_place_with_a_warning(copy, names):
    named(copy, names)
    with pytest.warns(QvlaWarning, match="names no dimensions"):
        read(copy, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rotate_180", ("agent",)), ("cameras", {"agentveiw": "observation.images.wrist"})],
)
def test_a_camera_that_the_policy_has_not_is_refused_by_its_name(copy, key, value):
    with pytest.raises(QvlaError, match=f"^{key}: got agent"):
        read(copy, 1, **{key: value})


def test_names_of_which_some_are_the_policys_are_refused_and_others_are_told(copy):
    named(copy, ["other", *PROPRIOCEPTION_NAMES[1:]])
    with pytest.raises(QvlaError, match="state_dimensions"):
        read(copy, 1)
    assert read(copy, 1, state_dimensions=tuple(range(8)))  # what the fix says
    named(copy, [f"motor_{index}" for index in range(8)])
    with pytest.warns(QvlaWarning, match="motor_0, .* are read as eef_x, .* in this order"):
        read(copy, 1)
    named(copy, list(PROPRIOCEPTION_NAMES[::-1]))
    with pytest.warns(QvlaWarning, match="state_dimensions takes"):
        read(copy, 1, state_dimensions=tuple(range(8)))


def test_instructions_beside_another_column_are_found_and_two_texts_are_named(copy):
    file = copy / "meta/tasks.parquet"
    table = pq.read_table(file)
    texts = [read(copy, 1)[0].text]
    more = table.append_column("note", pa.array(["x"] * len(table)))
    pq.write_table(more, file)
    assert read(copy, 1)[0].text == texts[0]
    pq.write_table(more.rename_columns(["task_index", "one", "two"]), file)
    with pytest.raises(QvlaError, match=r"tasks\.parquet: got the columns task_index, one, two"):
        read(copy, 1)


def test_an_episode_in_another_file_than_the_metadata_say_is_found_there(copy):
    folder = copy / "data/chunk-000"
    table = pq.read_table(folder / "file-000.parquet")
    first = [row["episode_index"] == 0 for row in table.to_pylist()]
    pq.write_table(table.filter(pa.array(first)), folder / "file-000.parquet")
    rest = table.filter(pa.array([not flag for flag in first]))
    before = [found.where for found in read(copy, 1)]
    pq.write_table(rest, folder / "file-001.parquet")
    with pytest.warns(QvlaWarning, match=r"but it is in file-001\.parquet"):
        found = read(copy)
    assert len(found) == len(table)
    assert found[0].where == before[0]
    (folder / "file-001.parquet").unlink()
    with pytest.raises(QvlaError, match="0 rows; expected one row"):
        read(copy)


@pytest.fixture
def filmed(copy) -> Path:
    """The dataset with the wrist camera as a video; its first episode begins after 1.5 seconds."""
    import imageio_ffmpeg as ffmpeg

    path = copy / "videos/observation.images.wrist/chunk-000/file-000.mp4"
    path.parent.mkdir(parents=True)
    fps = json.loads((copy / "meta/info.json").read_text())["fps"]
    writer = ffmpeg.write_frames(
        path, (64, 48), fps=fps, codec="libx264", output_params=["-g", "4"]
    )
    writer.send(None)
    for index in range(17):  # 10 frames of something else, then the 7 of the dataset
        writer.send(np.full((48, 64, 3), 15 * index, np.uint8).tobytes())
    writer.close()
    file = copy / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(file)
    places = {
        "chunk_index": [0] * 3,
        "file_index": [0] * 3,
        "from_timestamp": [10 / fps, 13 / fps, 15 / fps],
    }
    for column, values in places.items():
        episodes = episodes.append_column(
            f"videos/observation.images.wrist/{column}", pa.array(values)
        )
    pq.write_table(episodes, file)
    pattern = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

    def change(info) -> None:
        info["features"]["observation.images.wrist"]["dtype"] = "video"
        info["video_path"] = pattern

    edit_json(copy / "meta/info.json", change)
    return copy


def test_frames_of_a_video_are_those_of_their_timestamps(filmed):
    shades = [found.images[1].mean() for found in read(filmed)]
    assert np.abs(np.array(shades) - 15 * np.arange(10, 17)).max() < 4


def test_without_a_decoder_or_the_file_the_error_says_what_to_do(filmed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
        with pytest.raises(QvlaError, match="pip install imageio-ffmpeg"):
            read(filmed, 1)
    (filmed / "videos/observation.images.wrist/chunk-000/file-000.mp4").write_bytes(b"no video")
    with pytest.raises(QvlaError, match=r"file-000\.mp4 at 1\.500 s"):
        read(filmed, 1)
